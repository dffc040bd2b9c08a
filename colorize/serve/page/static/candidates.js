// The colourings to choose from: small pictures, one radio button each. Tells onChoose(number) what was chosen, 1 for the likeliest.
import { CANDIDATES } from "./album.js";
import { element, find, showBlob } from "./dom.js";
import { read } from "./zip.js";

export class Candidates {
  #root = find("choices");
  #images = [];
  #inputs = [];

  constructor(onChoose) {
    for (let number = 1; number <= CANDIDATES; number++) {
      const image = element("img", { alt: "" });
      const input = element("input", { type: "radio", name: "candidate", value: number, "aria-label": number === 1 ? "Colouring 1, the likeliest" : `Colouring ${number}` });
      input.addEventListener("change", () => onChoose(number));
      this.#images.push(image);
      this.#inputs.push(input);
      this.#root.append(element("label", { className: "choice" }, image, input));
    }
  }

  choose(number) { this.#inputs[number - 1].checked = true; }

  wait() { this.#root.classList.add("busy"); }

  rest() { this.#root.classList.remove("busy"); }

  empty() {
    for (const image of this.#images) showBlob(image, null);
    this.rest();
  }

  /** answer: the service's zip of all of them, in order. */
  async show(answer) {
    const files = await read(answer);
    for (const [index, { blob }] of files.entries()) if (this.#images[index]) showBlob(this.#images[index], blob.slice(0, blob.size, "image/jpeg"));
  }
}
