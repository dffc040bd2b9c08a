// One picture at work: what the panel says becomes requests, and what comes back becomes what the stage shows.
//
// While the user works, the service is asked about a copy of at most COPY_SIDE pixels, made in the browser, with the hints scaled to it:
// the network sees less than that anyway, so the colours are those of the original, after a fraction of the work (768 pixels 0.3 s on two
// busy cores, 1,024 pixels 0.4 s, below 768 no less; 0.2 s of them the network). They are laid on the
// original's own luma (editor.css, #tint), so the stage stays sharp at any zoom. The original itself is sent when the user pauses or
// downloads (album.js); its answer then replaces the laid-on colours.
import { album, CANDIDATES } from "./album.js";
import { Candidates } from "./candidates.js";
import { find, say, showBlob, sizeOf, speak } from "./dom.js";
import { Hints } from "./hints.js";
import { colorize } from "./service.js";
import { Stage } from "./stage.js";
import { run } from "./workshop.js";
import { save } from "./save.js";

const COPY_SIDE = 768, SMALL_SIDE = 288;
const CANDIDATES_DELAY_MS = 500; // after the last edit

export class Editor {
  picture = null;
  #stage = new Stage();
  #hints = new Hints(this.#stage);
  #candidates = new Candidates(candidate => this.#edit({ candidate }));
  #copies = null; // {source, copy, small}: what the requests are about
  #asking = null; // the AbortController of all requests about this picture
  #isPreviewing = false;
  #isStale = false; // edited while a preview was under way
  #timer = 0;
  #asked = { candidates: 0, doubt: 0 }; // how often; only the last answer is shown, whichever comes last

  constructor() {
    find("vividness").addEventListener("input", event => this.#edit({ vividness: event.target.valueAsNumber }));
    this.#hints.addEventListener("change", () => this.#edit({ hints: this.#hints.list }));
    find("doubt-switch").addEventListener("change", () => this.#doubt());
    find("download").addEventListener("click", () => this.#download());
    find("retry").addEventListener("click", () => this.#retry());
    album.addEventListener("wishes", () => { if (this.picture) { this.#preview(); this.#loadCandidates(); } });
    album.addEventListener("change", ({ detail }) => { if (detail === this.picture) this.#update(); });
  }

  open(picture) {
    this.close();
    this.picture = picture;
    this.#asking = new AbortController();
    find("editor-title").textContent = picture.name;
    this.#hints.show(picture.hints);
    this.#candidates.choose(picture.candidate);
    album.hurry(picture);
    this.#describe();
    this.#update();
  }

  /** Gives everything back that was held for the picture. */
  close() {
    this.#asking?.abort(new DOMException("closed", "AbortError"));
    clearTimeout(this.#timer);
    Object.assign(this, { picture: null });
    this.#copies = null;
    for (const id of ["before", "tint", "final", "doubt"]) showBlob(find(id), null);
    find("ground").removeAttribute("src");
    this.#candidates.empty();
    delete find("stage").dataset.pending;
    this.#reveal("nothing");
  }

  #edit(wishes) {
    find("stage").dataset.pending = "";
    album.edit(this.picture, wishes);
    this.#preview();
    this.#loadCandidates("candidate" in wishes);
  }

  /** All that may have failed with the original, which is the one that says so. */
  #retry() {
    find("stage").dataset.pending = "";
    album.retry(this.picture);
    this.#preview();
    this.#loadCandidates();
    this.#doubt();
    find("stage").focus({ preventScroll: true }); // the button is gone
  }

  #describe() {
    const { picture } = this;
    if (!picture) return; // left while a picture was decoded
    const vividness = picture.vividness ?? album.vividness;
    find("vividness").value = vividness;
    find("vividness-value").textContent = speak(find("vividness"));
    const pixels = picture.width ? `${picture.width.toLocaleString("en")} × ${picture.height.toLocaleString("en")}` : "";
    find("about").textContent = [pixels, sizeOf(picture.file.size)].filter(Boolean).join(" · ");
    const isFailed = picture.state === "failed";
    find("trouble").hidden = !isFailed;
    find("trouble-text").textContent = isFailed ? picture.reason : "";
    find("confidence").textContent = picture.confidence === null ? "" : `Mean confidence ${Math.round(100 * picture.confidence)} %. Nobody knows the true colours.`;
    find("download").disabled = isFailed;
    const isShown = find("stage").dataset.after !== "nothing";
    const waiting = picture.source ? "Colouring…" : "This browser cannot show the format. Waiting for the service’s preview…";
    let note = picture.reason || (isShown ? "" : waiting);
    if (isFailed) note = `This ${!isShown ? "one" : picture.of ? "change" : "original"} could not be coloured.`;
    else if (picture.state === "done" && !picture.source) note = `Coloured. ${picture.unshown}; download it.`;
    find("stage-note").textContent = note;
  }

  /** The picture has changed: its state, or what there is of it. */
  async #update() {
    const { picture } = this;
    this.#describe();
    if (picture.state === "failed") delete find("stage").dataset.pending;
    if (picture.source && this.#copies?.source !== picture.source) await this.#begin(picture);
    if (picture === this.picture && picture.view && album.isFresh(picture)) await this.#showFinal(picture);
  }

  async #begin(picture) {
    const { source } = picture, { signal } = this.#asking;
    this.#copies = { source };
    showBlob(find("before"), source);
    find("ground").src = find("before").src;
    this.#stage.open(picture.size);
    const copy = await run("reduce", source, COPY_SIDE, { first: true });
    const small = await run("reduce", copy.blob, SMALL_SIDE, { first: true });
    if (signal.aborted) return;
    Object.assign(this.#copies, { copy, small });
    if (!album.isFresh(picture)) this.#preview();
    this.#doubt();
    this.#loadCandidates();
  }

  /** Asks about the copy. One request at a time; edits meanwhile are asked for when it is back, all in one. */
  async #preview() {
    const { picture } = this, { signal } = this.#asking, copy = this.#copies?.copy;
    if (!copy) return;
    if (this.#isPreviewing) { this.#isStale = true; return; }
    this.#isPreviewing = true;
    this.#isStale = false;
    try {
      const wishes = { ...album.wishes(picture), hints: picture.hintsAt(copy) };
      const { blob, confidence } = await colorize(copy.blob, wishes, signal);
      // The original's answer may have come first, or come while this one is decoded; it stays.
      const isLate = () => signal.aborted || find("stage").dataset.after === "original" && album.isFresh(picture);
      if (isLate()) return;
      picture.confidence = confidence;
      await this.#show("tint", blob, "copy", isLate);
      this.#describe();
      if (!this.#isStale) this.#doubt();
    } catch (error) {
      this.#explain(error, signal);
    } finally {
      this.#isPreviewing = false;
      if (this.#isStale && this.picture) this.#preview();
    }
  }

  async #showFinal(picture) {
    const stage = find("stage");
    if (stage.dataset.of !== picture.of || stage.dataset.after !== "original") {
      stage.dataset.of = picture.of;
      await this.#show("final", picture.view, "original");
      this.#describe();
    }
    if (picture === this.picture && album.isFresh(picture)) delete stage.dataset.pending;
  }

  async #show(id, blob, after, isLate = () => false) {
    const image = find(id);
    showBlob(image, blob);
    await image.decode().catch(() => {}); // replaced meanwhile
    if (image.src && !isLate()) this.#reveal(after);
  }

  /** after: "nothing", "copy" (the copy's colours on the original's luma) or "original" (the coloured file). */
  #reveal(after) {
    find("stage").dataset.after = after;
    find("after").hidden = after === "nothing";
    find("tint").hidden = after !== "copy";
    find("final").hidden = after !== "original";
    find("divider").hidden = after === "nothing";
  }

  #loadCandidates(isOnlyChoice = false) {
    if (isOnlyChoice || !this.#copies?.small) return;
    clearTimeout(this.#timer);
    this.#candidates.wait();
    const number = ++this.#asked.candidates;
    this.#timer = setTimeout(async () => {
      const { picture } = this, { signal } = this.#asking, { small } = this.#copies;
      const { vividness, model } = album.wishes(picture);
      try {
        const { blob } = await colorize(small.blob, { vividness, model, candidates: CANDIDATES, hints: picture.hintsAt(small) }, signal);
        if (!signal.aborted && number === this.#asked.candidates) await this.#candidates.show(blob);
      } catch (error) {
        this.#explain(error, signal);
      } finally {
        if (number === this.#asked.candidates) this.#candidates.rest();
      }
    }, CANDIDATES_DELAY_MS);
  }

  async #doubt() {
    const veil = find("doubt"), isOn = find("doubt-switch").checked, { picture } = this, { signal } = this.#asking, copy = this.#copies?.copy;
    if (!isOn) showBlob(veil, null);
    veil.hidden = !isOn;
    if (!isOn || !copy) return;
    const number = ++this.#asked.doubt;
    try {
      const { blob } = await colorize(copy.blob, { ...album.wishes(picture), confidence: "only", hints: picture.hintsAt(copy) }, signal);
      const shown = await run("doubt", blob, COPY_SIDE, { first: true });
      if (!signal.aborted && number === this.#asked.doubt && find("doubt-switch").checked) showBlob(veil, shown.blob);
    } catch (error) {
      this.#explain(error, signal);
    }
  }

  async #download() {
    const { picture } = this, button = find("download");
    button.disabled = true;
    find("download-note").textContent = "Colouring the original in full resolution…";
    try {
      save(await album.file(picture), picture.downloadName);
      picture.saved = picture.of;
    } catch (error) {
      say(error.message);
    } finally {
      button.disabled = this.picture?.state === "failed";
      find("download-note").textContent = "In full resolution and its own format.";
    }
  }

  #explain(error, signal) { if (!signal.aborted) say(error.message); }
}
