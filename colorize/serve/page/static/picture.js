// One picture of the user's: its file, what is wished for it, and what has come back. Knows nothing of the service or the document.

let last = 0;

export class Picture {
  id = ++last;
  state = "waiting"; // waiting, working, done, failed
  reason = ""; // why it failed, or what it waits for
  width = 0; // upright; 0 until somebody could look at it
  height = 0;

  vividness = null; // null: as all others
  candidate = 1; // 1 is the likeliest colouring
  hints = []; // {across, down, color}; the places are 0…1 of the upright picture

  shown = null; // whether this browser can show the file: null until it was tried
  unshown = ""; // why there is no preview of what is coloured
  thumbnail = null; // blobs
  coloredThumbnail = null;
  grey = null; // what stands for the original where the browser cannot show it
  view = null; // the coloured picture, in full resolution and a format that the browser shows
  output = null; // the coloured picture in the file's own format
  of = null; // the wishes that `view` and `output` answer
  saved = null; // the wishes of what the user has saved
  confidence = null; // 0…1

  /** path: with the folders that it was given with, below which it lies in a zip. */
  constructor(file, path) {
    this.file = file;
    this.path = path || file.name || "picture";
    this.name = this.path.slice(this.path.lastIndexOf("/") + 1);
  }

  /** What the browser can show of the original; null until the service has sent a preview of a format that it cannot. */
  get source() { return this.shown ? this.file : this.grey; }

  get isEdited() { return this.vividness !== null || this.candidate > 1 || this.hints.length > 0; }

  get size() { return { width: this.width, height: this.height }; }

  /** The hints in pixels of a copy of this size. */
  hintsAt({ width, height }) {
    return this.hints.map(({ across, down, color }) => ({ x: Math.min(width - 1, Math.floor(across * width)), y: Math.min(height - 1, Math.floor(down * height)), color }));
  }

  /** What a download is called: `scan.tif` becomes `scan-in-colour.tif`, which overwrites nothing in a folder of downloads. */
  get downloadName() {
    const dot = this.name.lastIndexOf(".");
    return dot > 0 ? `${this.name.slice(0, dot)}-in-colour${this.name.slice(dot)}` : `${this.name}-in-colour`;
  }
}
