// Colour hints: marks on the picture, the colours to choose from beside the mark that is selected, and the list in the panel.
// Tells its listeners "change" when the user has placed, moved, recoloured or removed one; `list` is {across, down, color} each.
import { element, find, icon } from "./dom.js";

const SWATCHES = [
  ["sky", "#8fb3d9"], ["foliage", "#5d7f3f"], ["skin", "#d9a58b"], ["wood", "#8b5e3c"], ["brick", "#a8492f"], ["sand", "#d2b483"], ["navy", "#34507f"], ["crimson", "#b0283a"],
];
const STEP = 0.005;

export class Hints extends EventTarget {
  #stage;
  #layer = find("markers");
  #bar = find("hint-bar");
  #list = find("hint-list");
  #markers = [];
  #selected = -1;
  #color = SWATCHES[0][1]; // of the next one: the last that was chosen
  list = [];

  constructor(stage) {
    super();
    this.#stage = stage;
    this.#fillBar();
    stage.addEventListener("view", () => this.#place());
    stage.addEventListener("tap", ({ detail }) => {
      // A tap beside an open mark puts it down; the next places another.
      if (this.#selected >= 0) this.#select(-1); else this.add(detail);
    });
    find("hint-add").addEventListener("click", () => { this.add({ across: 0.5, down: 0.5 }); this.#markers.at(-1).focus(); });
    find("hint-clear").addEventListener("click", () => { this.#select(-1); this.#change([]); });
  }

  /** Shows those of another picture. */
  show(list) {
    this.list = list;
    this.#selected = -1;
    this.#draw();
  }

  add({ across, down }) {
    this.#change([...this.list, { across, down, color: this.#color }]);
    this.#select(this.list.length - 1);
  }

  #change(list) {
    this.list = list;
    this.#draw();
    this.dispatchEvent(new Event("change"));
  }

  #update(index, what) {
    const before = this.list[index];
    if (!before) return; // the system's colour picker stays open after its hint was put down
    this.list = this.list.map((hint, place) => place === index ? { ...hint, ...what } : hint);
    const { across, down, color } = this.list[index];
    if (across === before.across && down === before.down && color === before.color) return;
    if (what.color) this.#color = what.color;
    this.#describe();
    this.#place();
    this.dispatchEvent(new Event("change"));
  }

  #remove(index) {
    this.#select(-1);
    this.#change(this.list.filter((_, place) => place !== index));
    (this.#markers[Math.min(index, this.list.length - 1)] ?? find("hint-add")).focus({ preventScroll: true });
  }

  #select(index) {
    this.#selected = index;
    this.#describe();
    this.#place();
  }

  #draw() {
    this.#markers = this.list.map((_, index) => this.#marker(index));
    this.#layer.replaceChildren(...this.#markers);
    this.#list.replaceChildren(...this.list.map((_, index) => this.#row(index)));
    find("hint-clear").hidden = this.list.length < 2;
    if (this.#selected >= this.list.length) this.#selected = -1;
    this.#describe();
    this.#place();
  }

  #marker(index) {
    const marker = element("button", { type: "button", className: "marker" });
    let grip = null;
    marker.addEventListener("pointerdown", event => {
      if (event.button !== 0) return;
      event.stopPropagation();
      marker.setPointerCapture(event.pointerId);
      const { left, top } = this.#stage.at(this.list[index]), under = this.#stage.under(event.clientX, event.clientY), at = this.#stage.at(under);
      grip = { x: event.clientX, y: event.clientY, right: left - at.left, below: top - at.top, moved: false };
    });
    marker.addEventListener("pointermove", event => {
      if (!grip) return;
      grip.moved ||= Math.hypot(event.clientX - grip.x, event.clientY - grip.y) > 4;
      if (grip.moved) this.#move(index, this.#stage.under(event.clientX + grip.right, event.clientY + grip.below));
    });
    for (const end of ["pointerup", "pointercancel"]) marker.addEventListener(end, () => { marker.dataset.moved = grip?.moved ? "yes" : ""; grip = null; });
    marker.addEventListener("click", event => {
      event.stopPropagation();
      const isKeyboard = event.detail === 0;
      if (marker.dataset.moved && !isKeyboard) marker.dataset.moved = "";
      else this.#select(this.#selected === index && !isKeyboard ? -1 : index);
      if (isKeyboard) this.#bar.querySelector("button").focus(); // Enter chooses the colour; Escape puts the mark down
    });
    marker.addEventListener("keydown", event => this.#key(event, index));
    return marker;
  }

  #move(index, { across, down }) {
    const inside = value => Math.min(1, Math.max(0, value));
    this.#update(index, { across: inside(across), down: inside(down) });
  }

  #key(event, index) {
    const { across, down } = this.list[index], step = STEP * (event.shiftKey ? 10 : 1);
    const acts = {
      ArrowLeft: () => this.#move(index, { across: across - step, down }), ArrowRight: () => this.#move(index, { across: across + step, down }),
      ArrowUp: () => this.#move(index, { across, down: down - step }), ArrowDown: () => this.#move(index, { across, down: down + step }),
      Delete: () => this.#remove(index), Backspace: () => this.#remove(index),
    };
    if (event.key === "Escape" && this.#selected >= 0) acts.Escape = () => this.#select(-1);
    if (!acts[event.key]) return;
    event.preventDefault();
    event.stopPropagation();
    acts[event.key]();
  }

  #row(index) {
    const color = element("input", { type: "color" });
    color.addEventListener("input", () => this.#update(index, { color: color.value }));
    const remove = element("button", { type: "button", "aria-label": `Remove hint ${index + 1}` }, icon("close"));
    remove.addEventListener("click", () => this.#remove(index));
    return element("li", {}, color, element("span"), remove);
  }

  #fillBar() {
    const choose = color => this.#update(this.#selected, { color });
    for (const [name, color] of SWATCHES) {
      const swatch = element("button", { type: "button", className: "swatch", title: name, "aria-label": `${name}, ${color}` });
      swatch.style.setProperty("--color", color);
      swatch.addEventListener("click", () => choose(color));
      this.#bar.append(swatch);
    }
    const own = element("input", { type: "color", "aria-label": "Another colour" });
    own.addEventListener("input", () => choose(own.value));
    const remove = element("button", { type: "button", "aria-label": "Remove this hint", title: "remove" }, icon("close"));
    remove.addEventListener("click", () => this.#remove(this.#selected));
    this.#bar.append(element("label", { title: "another colour" }, own), remove);
    this.#bar.addEventListener("keydown", event => {
      if (event.key !== "Escape") return;
      event.stopPropagation();
      this.#markers[this.#selected]?.focus();
      this.#select(-1);
    });
  }

  /** Colours and words of marks and rows. */
  #describe() {
    for (const [index, { across, down, color }] of this.list.entries()) {
      const where = `${Math.round(100 * across)} % across, ${Math.round(100 * down)} % down`;
      const marker = this.#markers[index], [input, text] = this.#list.children[index].children;
      marker.style.setProperty("--color", color);
      marker.setAttribute("aria-label", `Hint ${index + 1}, ${color}, ${where}. Arrow keys move it, Delete removes it, Enter chooses its colour.`);
      marker.setAttribute("aria-pressed", String(index === this.#selected));
      input.value = color;
      input.setAttribute("aria-label", `Colour of hint ${index + 1}`);
      text.textContent = where;
    }
  }

  /** Marks and bar, where the picture lies now. */
  #place() {
    for (const [index, hint] of this.list.entries()) {
      const { left, top } = this.#stage.at(hint);
      this.#markers[index].style.transform = `translate(${left}px, ${top}px)`;
    }
    this.#bar.hidden = this.#selected < 0;
    if (this.#bar.hidden) return;
    const { left, top } = this.#stage.at(this.list[this.#selected]), { clientWidth, clientHeight } = this.#bar.parentElement;
    const { offsetWidth, offsetHeight } = this.#bar;
    const x = Math.min(clientWidth - offsetWidth - 8, Math.max(8, left - offsetWidth / 2));
    const y = top - offsetHeight - 26 > 8 ? top - offsetHeight - 26 : top + 26;
    this.#bar.style.transform = `translate(${x}px, ${Math.min(clientHeight - offsetHeight - 8, Math.max(8, y))}px)`;
    this.#bar.querySelector("input").value = this.list[this.#selected].color;
  }
}
