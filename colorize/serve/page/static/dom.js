// Small helpers for the document. Text only ever becomes text: nothing here or elsewhere in the page builds markup from a string.

export const find = id => document.getElementById(id);

/** An element with properties, and children that are elements or text. `aria-…` and `data-…` become attributes. */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  if (tag === "img") made.draggable = false; // else it could be dropped onto the page as a new picture
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-")) made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children);
  return made;
}

const SVG = "http://www.w3.org/2000/svg";

export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#icon-${name}`);
  svg.setAttribute("aria-hidden", "true");
  svg.append(use);
  return svg;
}

export const count = (number, one, many = `${one}s`) => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;

/** 512 as "1 kB", 67,108,864 as "64 MB": as the service counts its limits. */
export function sizeOf(bytes) {
  const kB = bytes / 2 ** 10;
  return kB < 1000 ? `${Math.ceil(kB)} kB` : `${Number((kB / 2 ** 10).toFixed(1)).toLocaleString("en")} MB`;
}

/** Says a slider's 0.5 as "50 %", which is what it shows or means; answers that. */
export function speak(slider) {
  const text = `${Math.round(100 * slider.value)} %`;
  slider.setAttribute("aria-valuetext", text);
  return text;
}

let hiding = 0;

/** Tells the user something that needs no answer, for a few seconds; a screen reader says it. */
export function say(text) {
  const notice = find("notice");
  notice.hidden = false;
  notice.textContent = text;
  clearTimeout(hiding);
  hiding = setTimeout(() => { notice.hidden = true; }, 4000 + 40 * text.length);
}

export const sleep = (ms, signal) => new Promise((resolve, reject) => {
  if (signal?.aborted) return reject(signal.reason);
  const stop = () => { clearTimeout(timer); reject(signal.reason); };
  const timer = setTimeout(() => { signal?.removeEventListener("abort", stop); resolve(); }, ms);
  signal?.addEventListener("abort", stop, { once: true });
});

/** An object URL for an <img>, the one that it had before given back. null takes the picture off. */
export function showBlob(image, blob) {
  if (image.dataset.url) URL.revokeObjectURL(image.dataset.url);
  if (blob) {
    image.dataset.url = URL.createObjectURL(blob);
    image.src = image.dataset.url;
  } else {
    delete image.dataset.url;
    image.removeAttribute("src");
  }
}
