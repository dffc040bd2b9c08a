// A queue that works on a few things at a time. Knows nothing of pictures.

export class Queue {
  #waiting = [];
  #working = new Map();

  /** limit: how many at a time. work(item, signal): a promise; it must not reject. */
  constructor(limit, work) {
    this.limit = limit;
    this.work = work;
  }

  has(item) { return this.#working.has(item) || this.#waiting.includes(item); }

  /** At the end, or before all others. What waits already is moved; what is being worked on is not taken twice. */
  add(item, { first = false } = {}) {
    if (this.#working.has(item)) return;
    const place = this.#waiting.indexOf(item);
    if (place >= 0 && !first) return;
    if (place >= 0) this.#waiting.splice(place, 1);
    if (first) this.#waiting.unshift(item); else this.#waiting.push(item);
    this.#start();
  }

  /** Takes it out, or stops the work on it. */
  remove(item) {
    const place = this.#waiting.indexOf(item);
    if (place >= 0) this.#waiting.splice(place, 1);
    this.#working.get(item)?.abort();
  }

  #start() {
    while (this.#working.size < this.limit && this.#waiting.length) {
      const item = this.#waiting.shift(), control = new AbortController();
      this.#working.set(item, control);
      this.work(item, control.signal).finally(() => { this.#working.delete(item); this.#start(); });
    }
  }
}
