// The line between before and after: an ARIA slider, moved by pointer and keyboard. Knows nothing of what it divides.

const STEP = 0.02, LEAP = 0.1;

export class Divider {
  value = 0.5;

  /** handle: the slider. host: what it lies in. part(): {left, width} of the divided part in the host, CSS pixels. onMove(): it stands elsewhere. */
  constructor(handle, host, part, onMove) {
    Object.assign(this, { handle, host, part, onMove });
    handle.addEventListener("keydown", event => this.#key(event));
    handle.addEventListener("pointerdown", event => {
      if (event.button !== 0) return;
      event.stopPropagation();
      event.preventDefault();
      handle.focus();
      handle.setPointerCapture(event.pointerId);
    });
    handle.addEventListener("pointermove", event => { if (handle.hasPointerCapture(event.pointerId)) this.moveTo(event.clientX); });
  }

  moveTo(clientX) {
    const { left, width } = this.part();
    this.set((clientX - this.host.getBoundingClientRect().left - left) / width);
  }

  set(value) {
    this.value = Math.min(1, Math.max(0, value));
    this.place();
    this.onMove();
  }

  /** Puts the line where its value says, after the part has changed too. */
  place() {
    const { left, width, top, height } = this.part();
    const after = Math.round(100 * (1 - this.value));
    this.handle.style.transform = `translate(${left + this.value * width}px, ${top ?? 0}px)`;
    if (height) this.handle.style.height = `${height}px`;
    this.handle.setAttribute("aria-valuenow", Math.round(100 * this.value));
    this.handle.setAttribute("aria-valuetext", `${after} % in colour`);
  }

  #key(event) {
    const steps = { ArrowLeft: -STEP, ArrowDown: -STEP, ArrowRight: STEP, ArrowUp: STEP, PageDown: -LEAP, PageUp: LEAP, Home: -1, End: 1 };
    const step = steps[event.key];
    if (step === undefined || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    event.stopPropagation();
    this.set(this.value + step * (event.shiftKey ? 5 : 1));
  }
}
