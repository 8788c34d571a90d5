// The theme, applied before the page is drawn, so that it does not flash in the other theme.
(() => {
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const read = () => { try { return localStorage.getItem("cflightning theme"); } catch { return null; } };
  const isDark = () => (root.dataset.theme ?? (dark.matches ? "dark" : "light")) === "dark";

  const chosen = read();
  if (chosen === "dark" || chosen === "light") root.dataset.theme = chosen;

  addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    const show = () => button.setAttribute("aria-pressed", String(isDark()));
    button.addEventListener("click", () => {
      root.dataset.theme = isDark() ? "light" : "dark";
      try { localStorage.setItem("cflightning theme", root.dataset.theme); } catch { /* without storage, the theme lasts until a reload */ }
      show();
    });
    dark.addEventListener("change", show);
    show();
  });
})();
