// Requests to the server of this page. Every failure is a RequestError with a message for people.

import { parse, stringify } from "./json.js";

const SECONDS = 15;
const KEY = "cflightning key";

/** kind: "gone" (a retry may help), "key" (an API key is needed), "unsupported" (by this bundle) or "refused". */
export class RequestError extends Error {
  constructor(kind, message) {
    super(message);
    this.kind = kind;
  }
}

export const hasKey = () => sessionStorage.getItem(KEY) !== null;
export const setKey = (key) => sessionStorage.setItem(KEY, key);  // until the tab is closed

export const get = (path, query = {}, signal) => {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) for (const one of [value].flat()) search.append(name, one);
  return send(search.size ? `${path}?${search}` : path, {}, signal);
};

export const post = (path, body, signal) =>
  send(path, { method: "POST", body: stringify(body), headers: { "Content-Type": "application/json" } }, signal);

/** The curl command of a request; the key itself is not shown. */
export function curl(path, body) {
  const url = new URL(path, document.baseURI);
  const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  const key = hasKey() ? ` \\\n  -H "X-API-Key: $KEY"` : "";
  return `curl ${quoted(url.href)}${key} \\\n  -H 'Content-Type: application/json' \\\n  -d ${quoted(stringify(body))}`;
}

async function send(path, options, signal) {
  const timeout = AbortSignal.timeout(SECONDS * 1000);
  const headers = { ...options.headers, ...(hasKey() ? { "X-API-Key": sessionStorage.getItem(KEY) } : {}) };
  let response, text;
  try {
    response = await fetch(path, { ...options, headers, signal: signal ? AbortSignal.any([signal, timeout]) : timeout });
    text = await response.text();
  } catch (error) {
    if (signal?.aborted) throw error;  // replaced by a newer request
    throw new RequestError("gone", timeout.aborted
      ? `The server did not answer within ${SECONDS} seconds.`
      : "The server cannot be reached.");
  }
  let body = null;
  try { body = parse(text); } catch { /* not JSON: the status decides */ }
  if (response.ok && body !== null) return body;
  throw toRequestError(response.status, body?.error);
}

function toRequestError(status, error) {
  const reason = error?.message ?? "";
  if (status === 401 || status === 403) return new RequestError("key", "This server asks for an API key.");
  if (status === 501 || error?.code === "unsupported") return new RequestError("unsupported", reason);
  if (status === 429 || status === 502 || status === 503 || status === 504) {
    return new RequestError("gone", "The server has too much to do, or is starting.");
  }
  if (status >= 500) return new RequestError("refused", `The server failed (${status}). ${reason}`.trim());
  return new RequestError("refused", `The server refused the request (${status}). ${reason}`.trim());
}
