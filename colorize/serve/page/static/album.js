// All pictures and the work on them: what is coloured when, and with which wishes. Tells its listeners "change" (detail: the picture) and
// "list" (pictures came or went), and "wishes" (what counts for all is another). Knows nothing of the document.
//
// A request for the original in full resolution costs what its pixels cost. So it is sent at once when a picture is added, but after an
// edit only when nobody has edited for IDLE_MS, or on download; meanwhile the editor works on a small copy (editor.js).
import { allowAsking } from "./key.js";
import { colorize, Refused } from "./service.js";
import { Picture } from "./picture.js";
import { Queue } from "./queue.js";
import { run } from "./workshop.js";

export const CANDIDATES = 6;
const AT_A_TIME = 3; // with the editor's own request, four
const IDLE_MS = 1500;
const THUMBNAIL_SIDE = 480;

class Album extends EventTarget {
  pictures = [];
  vividness = 0.5;
  model = null; // null: the service's default
  #queue = new Queue(AT_A_TIME, (picture, signal) => this.#work(picture, signal));
  #idle = new Map(); // picture → timer
  #looks = new Map(); // picture → the promise that it was looked at

  /** files: [{file, path}]. Answers the new pictures. */
  add(files) {
    allowAsking();
    const added = files.map(({ file, path }) => new Picture(file, path));
    this.pictures.push(...added);
    this.dispatchEvent(new Event("list"));
    for (const picture of added) {
      this.#looks.set(picture, this.#look(picture));
      this.#queue.add(picture);
    }
    return added;
  }

  remove(picture) {
    clearTimeout(this.#idle.get(picture));
    this.#idle.delete(picture);
    this.#queue.remove(picture);
    this.#looks.delete(picture);
    this.pictures = this.pictures.filter(other => other !== picture);
    this.dispatchEvent(new Event("list"));
  }

  clear() { for (const picture of [...this.pictures]) this.remove(picture); }

  /** Changes vividness, candidate or hints of one picture; the original follows when the user pauses. */
  edit(picture, wishes) {
    Object.assign(picture, wishes);
    if (picture.state === "failed") Object.assign(picture, { state: "waiting", reason: "" }); // it was another wish that failed
    this.#later(picture);
    this.#tell(picture);
  }

  /** Changes what counts for every picture that has no wish of its own. */
  setAll({ vividness = this.vividness, model = this.model }) {
    allowAsking();
    Object.assign(this, { vividness, model });
    for (const picture of this.pictures) if (!this.isFresh(picture)) this.retry(picture);
    this.dispatchEvent(new Event("wishes"));
  }

  retry(picture) {
    allowAsking();
    if (picture.state !== "working") Object.assign(picture, { state: "waiting", reason: "" });
    this.#queue.add(picture);
    this.#tell(picture);
  }

  /** The picture that the user looks at goes before all others. */
  hurry(picture) { if (picture.state === "waiting" && !this.#idle.has(picture)) this.#queue.add(picture, { first: true }); }

  /** The wishes as query parameters; the hints are added by whoever knows the size of the copy. */
  wishes(picture) {
    const { candidate } = picture;
    return {
      vividness: picture.vividness ?? this.vividness,
      model: this.model,
      ...(candidate > 1 && { candidates: CANDIDATES, candidate }),
    };
  }

  /** Whether what has come back is what is wished for now. */
  isFresh(picture) { return (picture.view ?? picture.output) !== null && picture.of === this.#key(picture); }

  /** What would be lost with the page: coloured or edited, and not saved as it is wished for now. */
  get unsaved() {
    return this.pictures.filter(picture => (picture.state === "done" || picture.isEdited) && picture.saved !== this.#key(picture));
  }

  /** The coloured file in full resolution and its own format, with the wishes of now. Rejects with a Refused. */
  async file(picture) {
    for (;;) {
      if (!this.pictures.includes(picture)) throw new Refused("It was removed."); // nobody works on it: it would be waited for without end
      if (this.isFresh(picture)) break;
      if (picture.state === "failed" && !this.#idle.has(picture)) throw new Refused(picture.reason);
      this.#now(picture);
      await this.#settled(picture);
    }
    if (!picture.output) { // the browser was sent a JPEG to show
      const of = this.#key(picture);
      const { blob } = await colorize(picture.file, { ...this.wishes(picture), hints: picture.hintsAt(picture.size) });
      if (of !== this.#key(picture)) return this.file(picture);
      picture.output = blob;
    }
    return picture.output;
  }

  #key(picture) { return JSON.stringify([this.wishes(picture), picture.hints]); }

  #tell(picture) { this.dispatchEvent(new CustomEvent("change", { detail: picture })); }

  #settled(picture) {
    return new Promise(resolve => {
      const look = () => {
        if (picture.state !== "done" && picture.state !== "failed" && this.pictures.includes(picture)) return;
        this.removeEventListener("change", look);
        this.removeEventListener("list", look);
        resolve();
      };
      this.addEventListener("change", look);
      this.addEventListener("list", look);
      look();
    });
  }

  #later(picture) {
    clearTimeout(this.#idle.get(picture));
    this.#idle.set(picture, setTimeout(() => this.#now(picture), IDLE_MS));
  }

  #now(picture) {
    clearTimeout(this.#idle.get(picture));
    this.#idle.delete(picture);
    if (picture.state === "working") return;
    const isDone = this.isFresh(picture); // an edit that failed, taken back
    Object.assign(picture, { state: isDone ? "done" : "waiting", reason: "" });
    if (!isDone) this.#queue.add(picture, { first: true });
    this.#tell(picture);
  }

  async #look(picture) {
    try {
      Object.assign(picture, await run("look", picture.file, THUMBNAIL_SIDE), { shown: true });
    } catch {
      picture.shown = false; // TIFF, JPEG 2000, or no picture: the service will know
    }
    this.#tell(picture);
  }

  async #work(picture, signal) {
    Object.assign(picture, { state: "working", reason: "" });
    this.#tell(picture);
    const onWait = seconds => { picture.reason = `the service is busy, again in ${seconds} s`; this.#tell(picture); };
    try {
      await this.#looks.get(picture);
      signal.throwIfAborted();
      await this.#color(picture, signal, onWait);
      Object.assign(picture, { state: "done", reason: "" });
    } catch (error) {
      if (signal.aborted) return;
      Object.assign(picture, { state: "failed", reason: error.message });
      if (!(error instanceof Refused)) console.error(error);
    }
    this.#tell(picture);
    if (picture.state === "done" && !this.isFresh(picture) && !this.#idle.has(picture)) this.#later(picture); // edited meanwhile
  }

  /** What it looks like goes before the thumbnails of those that wait: with 200 of them, it would wait for all. */
  async #color(picture, signal, onWait) {
    const of = this.#key(picture);
    const wishes = { ...this.wishes(picture), hints: picture.hintsAt(picture.size) };
    if (picture.shown) {
      const { blob, confidence } = await colorize(picture.file, wishes, signal, onWait);
      Object.assign(picture, { view: blob, output: blob, of, confidence });
    } else {
      await this.#colorUnshown(picture, wishes, of, signal, onWait);
    }
    if (picture.view) picture.coloredThumbnail = (await run("look", picture.view, THUMBNAIL_SIDE, { first: true })).thumbnail;
  }

  /** A file that the browser cannot show: a JPEG to look at; its own format on download. Where no JPEG holds it (pages), no preview. */
  async #colorUnshown(picture, wishes, of, signal, onWait) {
    let answer;
    try {
      answer = await colorize(picture.file, { ...wishes, format: "jpeg" }, signal, onWait);
    } catch (error) {
      if (!(error instanceof Refused) || error.status !== 422) throw error;
      const { blob, confidence } = await colorize(picture.file, wishes, signal, onWait);
      const unshown = /^It has .* pages/.test(error.message) ? "No preview: several pages" : "No preview of this format";
      Object.assign(picture, { view: null, output: blob, of, confidence, unshown });
      return;
    }
    if (!picture.grey) {
      const { width, height, blob } = await run("grey", answer.blob, 0, { first: true });
      const { thumbnail } = await run("look", blob, THUMBNAIL_SIDE, { first: true });
      Object.assign(picture, { width, height, grey: blob, thumbnail });
    }
    Object.assign(picture, { view: answer.blob, output: null, of, confidence: answer.confidence });
  }
}

export const album = new Album();
