// Files from the page to the user's disk.
import { album } from "./album.js";
import { element } from "./dom.js";
import { write } from "./zip.js";

/** Hands a blob to the browser as a download. */
export function save(blob, name) {
  const url = URL.createObjectURL(blob);
  element("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000); // the browser may still be reading
}

/**
 * All pictures that are coloured, in one zip, under the paths that they came with. Answers {saved, failed}: how many;
 * onProgress(done, of) on the way.
 */
export async function saveAll(onProgress) {
  const pictures = album.pictures.filter(picture => picture.state !== "failed");
  const files = [], taken = new Set();
  let failed = album.pictures.length - pictures.length;
  for (const picture of pictures) {
    onProgress(files.length, pictures.length);
    try {
      files.push({ name: unique(picture.path, taken), blob: await album.file(picture) });
      picture.saved = picture.of;
    } catch {
      if (album.pictures.includes(picture)) failed += 1; // its card says why
    }
  }
  if (files.length) save(await write(files), "in-colour.zip");
  return { saved: files.length, failed };
}

function unique(path, taken) {
  const safe = path.split("/").filter(part => part && part !== "." && part !== "..").join("/") || "picture";
  const dot = safe.lastIndexOf(".") > safe.lastIndexOf("/") + 1 ? safe.lastIndexOf(".") : safe.length;
  let name = safe;
  for (let number = 2; taken.has(name); number++) name = `${safe.slice(0, dot)}-${number}${safe.slice(dot)}`;
  taken.add(name);
  return name;
}
