// Requests to the service. Its errors are sentences, which are thrown as `ServiceError`.

import { byId } from "./dom.js";

const KEY = "cllm4rec-token";
const IDS_AT_ONCE = 25; // of an address: ids may be long
let token = stored();
let asking = null;

export class ServiceError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** The answer to GET; values of `query` that are lists become repeated parameters. */
export function get(path, query = {}, signal = undefined) {
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    for (const each of [value].flat()) parameters.append(name, each);
  }
  const text = parameters.toString();
  return answer(text ? `${path}?${text}` : path, { signal });
}

/** The items of the answers to GET for items by their ids, which do not fit into one address. */
export async function getItems(path, ids, signal = undefined) {
  const parts = [];
  for (let first = 0; first < ids.length; first += IDS_AT_ONCE) {
    parts.push(get(path, { item: ids.slice(first, first + IDS_AT_ONCE) }, signal));
  }
  return (await Promise.all(parts)).flatMap(({ items }) => items);
}

/** The answer to POST of a JSON body. */
export function post(path, body, signal = undefined) {
  const headers = { "Content-Type": "application/json" };
  return answer(path, { method: "POST", headers, body: JSON.stringify(body), signal });
}

async function answer(path, options) {
  for (;;) {
    const sent = token;
    const headers = sent ? { ...options.headers, Authorization: `Bearer ${sent}` } : options.headers;
    const response = await fetched(path, { ...options, headers });
    const body = await response.json().catch(() => null);
    options.signal?.throwIfAborted();
    if (response.ok && body !== null) return body;
    const sentence = body?.error ?? `the answer has status ${response.status} and no sentence`;
    // Another request may have brought a token meanwhile.
    if (response.status === 401 && (sent !== token || (await newToken(sent !== "")))) continue;
    throw new ServiceError(sentence, response.status);
  }
}

async function fetched(path, options) {
  try {
    return await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServiceError("the service does not answer: see whether it runs", 0);
  }
}

/** Ask for the token, once for all requests that wait for it; false if there is none. */
function newToken(wasWrong) {
  asking ??= asked(wasWrong).finally(() => {
    asking = null;
  });
  return asking;
}

function asked(wasWrong) {
  const dialog = byId("token-dialog");
  byId("token-note").textContent = wasWrong
    ? "The service refuses this token. Enter another one."
    : "The service needs a token. It is kept until this tab is closed.";
  byId("token").value = "";
  dialog.showModal();
  return new Promise((resolve) => {
    byId("token-form").onsubmit = (event) => {
      event.preventDefault();
      token = byId("token").value.trim();
      store(token);
      dialog.close("given");
    };
    byId("token-cancel").onclick = () => dialog.close("");
    dialog.oncancel = () => {
      dialog.returnValue = "";
    };
    dialog.onclose = () => {
      byId("token").value = "";
      resolve(dialog.returnValue === "given");
      dialog.returnValue = "";
    };
  });
}

// A browser that blocks storage throws; the token is then kept in memory alone.
function stored() {
  try {
    return sessionStorage.getItem(KEY) ?? "";
  } catch {
    return "";
  }
}

function store(value) {
  try {
    sessionStorage.setItem(KEY, value);
  } catch {
    // kept in memory
  }
}
