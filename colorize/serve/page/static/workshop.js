// The page's side of its worker: jobs on pixels, two at a time, since a scan of 50 megapixels takes 200 MB while it is decoded.
import { address } from "./service.js";
import { Queue } from "./queue.js";

const AT_A_TIME = 2;

// The page may start scripts only through this policy, which knows one.
const url = address("static/worker.js").href;
const policy = globalThis.trustedTypes?.createPolicy("worker", { createScriptURL: () => url });
const worker = new Worker(policy ? policy.createScriptURL("") : url);

const open = new Map();
let last = 0;

worker.addEventListener("message", ({ data: { id, result, error } }) => {
  const { resolve, reject } = open.get(id);
  open.delete(id);
  if (error) reject(new Error(error)); else resolve(result);
});

worker.addEventListener("error", event => { // its script did not come: nothing waits for it for ever
  for (const [id, { reject }] of open) {
    open.delete(id);
    reject(new Error(event.message || "the page's worker does not start"));
  }
});

const jobs = new Queue(AT_A_TIME, job => new Promise(done => {
  open.set(job.id, {
    resolve: result => { job.resolve(result); done(); },
    reject: error => { job.reject(error); done(); },
  });
  const { resolve, reject, ...message } = job;
  worker.postMessage(message);
}));

/** Runs `name` of worker.js on a blob; rejects where this browser cannot show it. first: before those that wait. */
export const run = (name, blob, side, { first = false } = {}) => new Promise((resolve, reject) => {
  jobs.add({ id: ++last, name, blob, side, resolve, reject }, { first });
});
