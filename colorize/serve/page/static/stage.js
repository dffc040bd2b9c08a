// The picture on its stage: zoom, pan and the divider, by mouse, touch and keyboard. Tells its listeners "view" (it lies elsewhere)
// and "tap" (detail: {across, down}, 0…1 of the picture). Knows nothing of hints or of the service.
import { Divider } from "./divider.js";
import { find } from "./dom.js";

const MARGIN = 24; // CSS pixels around a picture that fits
const LARGEST = 16; // CSS pixels a picture's pixel
const TAP = 6; // CSS pixels that a finger may move and still tap
const ZOOM = 1.25, PAN = 60;

export class Stage extends EventTarget {
  #root = find("stage");
  #sheet = find("sheet");
  #pointers = new Map();
  #gesture = null; // what the pointers that are down are doing
  #tapped = false; // the last gesture was a tap, and its click is still to come
  #fitted = true;
  width = 1; // of the picture, in its own pixels
  height = 1;
  scale = 1; // CSS pixels a picture's pixel
  x = 0; // of the picture's corner, CSS pixels
  y = 0;

  constructor() {
    super();
    this.divider = new Divider(find("divider"), this.#root, () => this.#visible(), () => this.#split());
    new ResizeObserver(() => { if (this.#fitted) this.fit(); else this.#layout(); }).observe(this.#root);
    this.#listen();
  }

  /** A picture of that size comes on. */
  open({ width, height }) {
    Object.assign(this, { width, height });
    this.divider.value = 0.5;
    this.fit();
  }

  /** A place of the picture, 0…1, in CSS pixels of the stage. */
  at({ across, down }) { return { left: this.x + across * this.width * this.scale, top: this.y + down * this.height * this.scale }; }

  /** What lies at a point of the screen, 0…1 of the picture; outside of it less or more. */
  under(clientX, clientY) {
    const box = this.#root.getBoundingClientRect();
    return { across: (clientX - box.left - this.x) / (this.width * this.scale), down: (clientY - box.top - this.y) / (this.height * this.scale) };
  }

  fit() {
    this.#fitted = true;
    this.scale = this.#fitting;
    this.#layout();
  }

  /** Every pixel of the picture is one of the screen. */
  real() { this.zoom(1 / devicePixelRatio / this.scale); }

  /** By a factor, around a point of the stage (CSS pixels): what lies there stays there. */
  zoom(factor, left = this.#root.clientWidth / 2, top = this.#root.clientHeight / 2) {
    const scale = Math.min(LARGEST, Math.max(Math.min(this.#fitting, 1 / devicePixelRatio), this.scale * factor));
    this.x = left - (left - this.x) * scale / this.scale;
    this.y = top - (top - this.y) * scale / this.scale;
    this.scale = scale;
    this.#fitted = Math.abs(scale - this.#fitting) < 1e-6;
    this.#layout();
  }

  pan(right, down) {
    this.x += right;
    this.y += down;
    this.#layout();
  }

  get #fitting() {
    const { clientWidth, clientHeight } = this.#root, margin = clientWidth < 600 ? 0 : MARGIN;
    return Math.min(4, Math.max(1, clientWidth - 2 * margin) / this.width, Math.max(1, clientHeight - 2 * margin) / this.height);
  }

  get #overflows() { return this.width * this.scale > this.#root.clientWidth + 1 || this.height * this.scale > this.#root.clientHeight + 1; }

  #visible() {
    const left = Math.max(0, this.x), top = Math.max(0, this.y);
    const right = Math.min(this.#root.clientWidth, this.x + this.width * this.scale), bottom = Math.min(this.#root.clientHeight, this.y + this.height * this.scale);
    return { left, top, width: Math.max(1, right - left), height: Math.max(1, bottom - top) };
  }

  #layout() {
    const within = (offset, size, room) => size <= room ? (room - size) / 2 : Math.min(0, Math.max(room - size, offset));
    const width = this.width * this.scale, height = this.height * this.scale;
    this.x = within(this.x, width, this.#root.clientWidth);
    this.y = within(this.y, height, this.#root.clientHeight);
    this.#sheet.style.setProperty("--width", `${width}px`);
    this.#sheet.style.setProperty("--height", `${height}px`);
    this.#sheet.style.transform = `translate(${this.x}px, ${this.y}px)`;
    this.#root.classList.toggle("zoomed", this.#overflows);
    this.#root.classList.toggle("pixels", this.scale * devicePixelRatio > 3);
    find("zoom-level").textContent = `${Math.round(100 * this.scale * devicePixelRatio)} %`;
    this.divider.place();
    this.#split();
    this.dispatchEvent(new Event("view"));
  }

  #split() {
    const { left, width } = this.#visible(), { value } = this.divider;
    this.#sheet.style.setProperty("--split", `${left + value * width - this.x}px`);
    this.#root.querySelector(".before-chip").hidden = value < 0.16;
    this.#root.querySelector(".after-chip").hidden = value > 0.84;
  }

  #listen() {
    const root = this.#root;
    root.addEventListener("pointerdown", event => {
      if (event.button !== 0 || event.target.closest("button, input, label, [role=slider], .hint-bar, .zoom")) return;
      root.setPointerCapture(event.pointerId);
      this.#tapped = false;
      this.#pointers.set(event.pointerId, event);
      this.#gesture = this.#pointers.size === 1 ? { kind: "tap", x: event.clientX, y: event.clientY } : { kind: "pinch" };
    });
    root.addEventListener("pointermove", event => this.#drag(event));
    for (const end of ["pointerup", "pointercancel"]) {
      root.addEventListener(end, event => {
        if (!this.#pointers.delete(event.pointerId)) return;
        this.#tapped = end === "pointerup" && this.#gesture?.kind === "tap";
        if (!this.#pointers.size) this.#gesture = null;
        root.classList.remove("panning");
      });
    }
    // At the click and not before: after a touch, the click goes to what lies there by then, which would be the mark just placed.
    root.addEventListener("click", event => { if (this.#tapped) this.#tap(event); this.#tapped = false; });
    root.addEventListener("wheel", event => {
      event.preventDefault();
      const box = root.getBoundingClientRect();
      this.zoom(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.002)), event.clientX - box.left, event.clientY - box.top);
    }, { passive: false });
    root.addEventListener("keydown", event => { if (event.target === root) this.#key(event); });
    for (const [id, act] of Object.entries({ "zoom-in": () => this.zoom(ZOOM), "zoom-out": () => this.zoom(1 / ZOOM), "zoom-fit": () => this.fit(), "zoom-real": () => this.real() })) {
      find(id).addEventListener("click", act);
    }
  }

  #drag(event) {
    const before = this.#pointers.get(event.pointerId);
    if (!before) return;
    const others = [...this.#pointers.values()].filter(other => other.pointerId !== event.pointerId);
    this.#pointers.set(event.pointerId, event);
    if (others.length) {
      const [other] = others, box = this.#root.getBoundingClientRect();
      const apart = point => Math.hypot(point.clientX - other.clientX, point.clientY - other.clientY);
      this.pan((event.clientX - before.clientX) / 2, (event.clientY - before.clientY) / 2);
      this.zoom(apart(event) / Math.max(1, apart(before)), (event.clientX + other.clientX) / 2 - box.left, (event.clientY + other.clientY) / 2 - box.top);
      return;
    }
    if (this.#gesture?.kind === "tap" && Math.hypot(event.clientX - this.#gesture.x, event.clientY - this.#gesture.y) > TAP) this.#gesture = { kind: "drag" };
    if (this.#gesture?.kind !== "drag") return;
    if (this.#overflows) {
      this.#root.classList.add("panning");
      this.pan(event.clientX - before.clientX, event.clientY - before.clientY);
    } else { // nothing to pan: the whole picture is a handle of the divider
      this.divider.set(this.divider.value + (event.clientX - before.clientX) / this.#visible().width);
    }
  }

  #tap(event) {
    const place = this.under(event.clientX, event.clientY);
    if (Math.min(place.across, place.down) >= 0 && Math.max(place.across, place.down) <= 1) this.dispatchEvent(new CustomEvent("tap", { detail: place }));
  }

  #key(event) {
    const acts = {
      "+": () => this.zoom(ZOOM), "=": () => this.zoom(ZOOM), "-": () => this.zoom(1 / ZOOM), 0: () => this.fit(), 1: () => this.real(),
      ArrowLeft: () => this.pan(PAN, 0), ArrowRight: () => this.pan(-PAN, 0), ArrowUp: () => this.pan(0, PAN), ArrowDown: () => this.pan(0, -PAN),
    };
    if (!acts[event.key] || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    acts[event.key]();
  }
}
