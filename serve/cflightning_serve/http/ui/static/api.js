// Requests to the server that this page came from. Every failure is a Trouble that says what happened in words.

import { parse, stringify } from "./json.js";

const SECONDS = 15;
const KEY = "cflightning key";

/** kind: "gone" (worth another try), "key" (needs one), "unsupported" (this bundle cannot) or "refused". */
export class Trouble extends Error {
  constructor(kind, message) {
    super(message);
    this.kind = kind;
  }
}

export const hasKey = () => sessionStorage.getItem(KEY) !== null;
export const setKey = (key) => sessionStorage.setItem(KEY, key);  // gone with the tab

export const get = (path, query = {}, signal) => {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) for (const one of [value].flat()) search.append(name, one);
  return ask(search.size ? `${path}?${search}` : path, {}, signal);
};

export const post = (path, body, signal) =>
  ask(path, { method: "POST", body: stringify(body), headers: { "Content-Type": "application/json" } }, signal);

/** The command that asks the same; the key itself is not shown. */
export function curl(path, body) {
  const url = new URL(path, document.baseURI);
  const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  const key = hasKey() ? ` \\\n  -H "X-API-Key: $KEY"` : "";
  return `curl ${quoted(url.href)}${key} \\\n  -H 'Content-Type: application/json' \\\n  -d ${quoted(stringify(body))}`;
}

async function ask(path, options, signal) {
  const timeout = AbortSignal.timeout(SECONDS * 1000);
  const headers = { ...options.headers, ...(hasKey() ? { "X-API-Key": sessionStorage.getItem(KEY) } : {}) };
  let response, text;
  try {
    response = await fetch(path, { ...options, headers, signal: signal ? AbortSignal.any([signal, timeout]) : timeout });
    text = await response.text();
  } catch (error) {
    if (signal?.aborted) throw error;  // asked anew meanwhile: nobody waits for this one
    throw new Trouble("gone", timeout.aborted
      ? `The server did not answer within ${SECONDS} seconds.`
      : "The server cannot be reached.");
  }
  let answer = null;
  try { answer = parse(text); } catch { /* judged by its status */ }
  if (response.ok && answer !== null) return answer;
  throw trouble(response.status, answer?.error);
}

function trouble(status, error) {
  const reason = error?.message ?? "";
  if (status === 401 || status === 403) return new Trouble("key", "This server asks for an API key.");
  if (status === 501 || error?.code === "unsupported") return new Trouble("unsupported", reason);
  if (status === 429 || status === 502 || status === 503 || status === 504) {
    return new Trouble("gone", "The server has too much to do, or is starting.");
  }
  if (status >= 500) return new Trouble("refused", `The server failed (${status}). ${reason}`.trim());
  return new Trouble("refused", `The server refused the question (${status}). ${reason}`.trim());
}
