// The service's API over HTTP. Knows nothing of the page but the key's dialog: what goes wrong is a Refused with one line for the user.
import * as key from "./key.js";
import { sizeOf, sleep } from "./dom.js";

const TRIES = 10; // of a request that is answered 429 or 503
const LONGEST_WAIT_MS = 60_000;
const LOST_TRIES = 3; // of one that is not answered at all

export class Refused extends Error {
  constructor(reason, status = 0) {
    super(reason);
    this.status = status;
  }
}

/** Told "answered" when the service has done what it was asked: it is there, and the key is good. */
export const answers = new EventTarget();

export const address = path => new URL(path, document.baseURI);

/** {default, models} as `/v1/models` has them. */
export const models = async () => (await send("v1/models", { method: "GET" })).json();

/**
 * A picture in colour: {blob, confidence}. settings: vividness, candidate, candidates, format, confidence, model, and hints, a list of
 * {x, y, color} in pixels of this very file. onWait(seconds) is told when the service is busy and the request waits.
 */
export async function colorize(picture, settings, signal, onWait) {
  const { hints, ...rest } = settings;
  const url = address("v1/colorize");
  for (const [name, value] of Object.entries(rest)) if (value !== null && value !== undefined) url.searchParams.set(name, value);
  let body = picture, headers = { "Content-Type": "application/octet-stream" };
  if (hints?.length) { // not in the query: a thousand of them are longer than a server reads in a URL
    body = new FormData();
    body.set("file", picture, "picture");
    body.set("hints", JSON.stringify(hints));
    headers = {};
  }
  const response = await send(url, { method: "POST", body, headers, signal }, onWait);
  const confidence = Number.parseFloat(response.headers.get("X-Colorize-Mean-Confidence"));
  return { blob: await whole(response, signal), confidence: Number.isNaN(confidence) ? null : confidence };
}

async function send(path, options, onWait = () => {}) {
  for (let tries = 1, lost = 1; ; ) {
    const used = key.current();
    const headers = { ...options.headers, ...(used && { Authorization: `Bearer ${used}` }) };
    let response;
    try {
      response = await fetch(address(path), { ...options, headers, cache: "no-store", credentials: "omit" });
    } catch (error) {
      if (options.signal?.aborted) throw error;
      if (lost++ >= LOST_TRIES) throw new Refused("The service does not answer. Is it still running?");
      await sleep(500 * 2 ** lost, options.signal);
      continue;
    }
    if (response.ok) {
      answers.dispatchEvent(new Event("answered"));
      return response;
    }
    if (response.status === 401) {
      if (await key.ask(used)) continue;
      throw new Refused("This service needs an API key.", 401);
    }
    if ((response.status === 429 || response.status === 503) && tries++ < TRIES) {
      const ms = waitOf(response);
      onWait(Math.ceil(ms / 1000));
      await sleep(ms, options.signal);
      continue;
    }
    throw new Refused(await reasonOf(response), response.status);
  }
}

/** What Retry-After says, as seconds or as a date, and up to a quarter more: those who were refused together do not come back together. */
function waitOf(response) {
  const said = response.headers.get("Retry-After") ?? "1";
  const ms = /^\d+$/.test(said) ? 1000 * said : new Date(said) - Date.now();
  return Math.min(Math.max(Number.isNaN(ms) ? 1000 : ms, 250), LONGEST_WAIT_MS) * (1 + Math.random() / 4);
}

/**
 * A reason of the service for the user. It names the part of the request that it is about, which stands beside it here:
 * "the body: is too large; up to 67,108,864 bytes are read" becomes "It is too large; up to 64 MB are read".
 */
export function plain(reason) {
  const text = reason
    .replace(/^the (picture|body|frame): /, "")
    .replace(/^(is|has|did|cannot) /, "it $1 ")
    .replace(/(\d[\d,]{4,}) bytes/g, (_, number) => sizeOf(Number(number.replaceAll(",", ""))));
  return text.charAt(0).toUpperCase() + text.slice(1);
}

async function reasonOf(response) {
  try {
    const { error } = await response.json();
    return error ? plain(error) : `The service answers ${response.status}`;
  } catch {
    return `The service answers ${response.status} ${response.statusText}`.trim();
  }
}

async function whole(response, signal) {
  try {
    return await response.blob();
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Refused("The connection ended before the picture did.");
  }
}
