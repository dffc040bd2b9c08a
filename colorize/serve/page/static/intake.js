// How pictures come in: picked, dropped (folders too, with all below them), or pasted.
import { count, find, say } from "./dom.js";

const PICTURE = /\.(jpe?g|jpe|jfif|png|tiff?|webp|jp2|j2k|jpx|jpf|bmp|p[bgpn]m|hei[cf]|avif|gif)$/i;
const MOST = 2000; // at a time; more is a job for `colorize archive`

/** onFiles([{file, path}]) is called with what the user gave. */
export function listen(onFiles) {
  const take = (entries, fromFolder) => {
    // Of a folder, what is no picture by its name is left out and counted; a file that was given by itself is always tried.
    const kept = entries.filter(({ file, path }) => !fromFolder && !path.includes("/") || PICTURE.test(file.name));
    const left = entries.length - kept.length;
    const taken = kept.slice(0, MOST);
    if (kept.length > MOST) say(`${count(kept.length, "picture")}: the first ${MOST.toLocaleString("en")} are taken. For whole archives there is “colorize archive”.`);
    else if (left) say(`${count(left, "file")} left out: no picture by the name.`);
    else if (!taken.length) say("No picture in there.");
    if (taken.length) onFiles(taken);
  };

  for (const [kind, input] of [["files", find("pick-files")], ["folder", find("pick-folder")]]) {
    for (const button of document.querySelectorAll(`[data-pick="${kind}"]`)) button.addEventListener("click", () => input.click());
    input.addEventListener("change", () => {
      take([...input.files].map(file => ({ file, path: file.webkitRelativePath || file.name })), kind === "folder");
      input.value = "";
    });
  }

  document.addEventListener("paste", event => {
    const files = [...event.clipboardData.files];
    if (files.length) take(files.map(file => ({ file, path: file.name })), false);
  });

  let depth = 0;
  const isFiles = event => event.dataTransfer?.types.includes("Files");
  const veil = on => document.body.classList.toggle("dragging", on);
  addEventListener("dragenter", event => { if (isFiles(event)) { depth += 1; veil(true); } });
  addEventListener("dragleave", event => { if (isFiles(event)) { depth = Math.max(0, depth - 1); veil(depth > 0); } });
  addEventListener("dragover", event => { if (isFiles(event)) event.preventDefault(); });
  addEventListener("drop", async event => {
    if (!isFiles(event)) return;
    event.preventDefault();
    depth = 0;
    veil(false);
    take(await dropped(event.dataTransfer), false);
  });
}

async function dropped(transfer) {
  // The entries must be asked for before the first await: the list is empty afterwards.
  const entries = [...transfer.items].map(item => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return [...transfer.files].map(file => ({ file, path: file.name }));
  const found = [];
  for (const entry of entries) await walk(entry, "", found);
  return found;
}

async function walk(entry, folder, found) {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject)).catch(() => null);
    if (file) found.push({ file, path: folder + file.name });
    return;
  }
  const reader = entry.createReader();
  for (;;) { // a browser gives at most 100 entries at a time
    const part = await new Promise((resolve, reject) => reader.readEntries(resolve, reject)).catch(() => []);
    if (!part.length) return;
    for (const child of part) await walk(child, `${folder}${entry.name}/`, found);
  }
}
