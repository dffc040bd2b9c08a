// The gallery: a card a picture with its state, what is done of all of them, and the strip below an open picture.
// A card costs a few elements and two thumbnails; those out of sight are neither laid out nor painted (gallery.css, content-visibility).
import { album } from "./album.js";
import { count, element, find, icon, say, showBlob, speak } from "./dom.js";
import { saveAll } from "./save.js";

const WORDS = { waiting: "waiting", working: "working", done: "coloured", failed: "failed" };

export class Gallery {
  #cards = new Map(); // picture → what its card and its place in the strip consist of
  #onOpen;

  constructor(onOpen) {
    this.#onOpen = onOpen;
    album.addEventListener("list", () => this.#list());
    album.addEventListener("change", ({ detail }) => { this.#update(detail); this.#tally(); });
    find("vividness-all").addEventListener("input", event => speak(event.target));
    find("vividness-all").addEventListener("change", event => album.setAll({ vividness: event.target.valueAsNumber }));
    find("retry-all").addEventListener("click", () => this.#retryAll());
    find("clear").addEventListener("click", () => this.#clear());
    find("download-all").addEventListener("click", () => this.#saveAll());
  }

  focus(picture) { this.#cards.get(picture)?.open.focus(); }

  /** Marks the picture that is open in the strip. */
  mark(picture) {
    for (const [other, { thumb }] of this.#cards) {
      if (other === picture) thumb.setAttribute("aria-current", "true"); else thumb.removeAttribute("aria-current");
    }
    this.#cards.get(picture)?.thumb.scrollIntoView({ block: "nearest", inline: "center" });
  }

  #list() {
    const here = new Set(album.pictures);
    for (const [picture, card] of this.#cards) if (!here.has(picture)) this.#drop(picture, card);
    for (const picture of album.pictures) if (!this.#cards.has(picture)) this.#add(picture);
    find("strip-row").classList.toggle("single", album.pictures.length < 2);
    this.#tally();
  }

  #add(picture) {
    const grey = element("img", { className: "grey", alt: "" }), colored = element("img", { className: "colored", alt: "" });
    const why = element("span", { className: "why", hidden: true });
    const open = element("button", { type: "button", className: "open" }, grey, colored, why);
    const state = element("span", { className: "state" });
    const again = element("button", { type: "button", title: "Try again", "aria-label": `Try ${picture.name} again`, hidden: true }, icon("again"));
    const remove = element("button", { type: "button", title: "Remove", "aria-label": `Remove ${picture.name}` }, icon("close"));
    const item = element("li", { className: "card" }, open,
      element("div", { className: "caption" }, element("span", { className: "name", title: picture.path }, picture.name), state),
      element("div", { className: "tools" }, again, remove));
    open.addEventListener("click", () => this.#onOpen(picture));
    again.addEventListener("click", () => { album.retry(picture); open.focus(); });
    remove.addEventListener("click", () => this.#remove(picture));
    const small = element("img", { alt: "" });
    const thumb = element("button", { type: "button", "aria-label": picture.name, title: picture.name }, small);
    thumb.addEventListener("click", () => this.#onOpen(picture));
    const place = element("li", {}, thumb);
    this.#cards.set(picture, { item, open, grey, colored, why, state, again, remove, place, thumb, small, has: {} });
    find("cards").append(item);
    find("strip").append(place);
    this.#update(picture);
  }

  #drop(picture, { item, place, grey, colored, small }) {
    for (const image of [grey, colored, small]) showBlob(image, null);
    item.remove();
    place.remove();
    this.#cards.delete(picture);
  }

  #update(picture) {
    const card = this.#cards.get(picture);
    if (!card) return; // removed while it was worked on
    const { item, open, grey, colored, why, state, again, small, thumb, has } = card;
    item.dataset.state = picture.state;
    if (picture.thumbnail && has.thumbnail !== picture.thumbnail) showBlob(grey, has.thumbnail = picture.thumbnail);
    const best = picture.coloredThumbnail ?? picture.thumbnail;
    if (best && has.best !== best) showBlob(small, has.best = best);
    if (picture.coloredThumbnail && has.colored !== picture.coloredThumbnail) {
      showBlob(colored, has.colored = picture.coloredThumbnail);
      colored.decode().then(() => colored.classList.add("here"), () => {});
    }
    const isFailed = picture.state === "failed";
    const note = isFailed ? picture.reason : best ? "" : picture.unshown;
    why.hidden = !note;
    why.textContent = note;
    again.hidden = !isFailed;
    thumb.dataset.sign = isFailed ? "!" : note ? picture.name.split(".").at(-1).slice(0, 4) : "";
    thumb.setAttribute("aria-label", isFailed ? `${picture.name}: failed` : picture.name);
    state.textContent = picture.state !== "failed" && picture.reason ? picture.reason : WORDS[picture.state];
    open.setAttribute("aria-label", `${picture.name}: ${WORDS[picture.state]}${note && `: ${note}`}`);
  }

  #tally() {
    const all = album.pictures.length, of = { waiting: 0, working: 0, done: 0, failed: 0 };
    for (const { state } of album.pictures) of[state] += 1;
    const left = of.waiting + of.working;
    const parts = [left ? `${of.done} of ${count(all, "picture")} coloured` : of.done ? `${count(of.done, "picture")} coloured` : "", of.failed ? `${of.failed} failed` : ""];
    find("tally").textContent = parts.filter(Boolean).join(", ");
    find("progress").value = all ? (of.done + of.failed) / all : 0;
    find("progress").hidden = !left;
    find("download-all").disabled = !of.done;
    find("retry-all").hidden = !of.failed;
    find("retry-all").textContent = `Try ${of.failed.toLocaleString("en")} again`;
    if (!left) find("announcement").textContent = find("tally").textContent; // not each of 200: a screen reader would never end
  }

  #clear() {
    const unsaved = album.unsaved.length;
    if (unsaved && !confirm(`Remove all? ${count(unsaved, "picture is", "pictures are")} not saved.`)) return;
    album.clear();
    find("choose").focus();
  }

  /** Removes it, and goes on to the same button of the next one: the keyboard's place would be lost with the card. */
  #remove(picture) {
    const place = album.pictures.indexOf(picture);
    album.remove(picture);
    const next = album.pictures[Math.min(place, album.pictures.length - 1)];
    (next ? this.#cards.get(next).remove : find("choose")).focus();
  }

  #retryAll() {
    const failed = album.pictures.filter(({ state }) => state === "failed");
    for (const picture of failed) album.retry(picture);
    this.focus(failed[0]); // the button is gone
  }

  async #saveAll() {
    const button = find("download-all");
    button.disabled = true;
    try {
      const { saved, failed } = await saveAll((done, of) => { button.textContent = `${done} of ${of}…`; });
      const without = failed ? `; ${failed} failed and ${failed === 1 ? "is" : "are"} not` : "";
      if (saved || failed) say(`${count(saved, "picture")} in the zip${without}.`);
    } catch (error) {
      say(error.message);
    } finally {
      button.textContent = "Download all";
      this.#tally();
    }
  }
}
