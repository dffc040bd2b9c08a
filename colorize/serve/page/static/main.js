// The page: which view is seen, and what leads from one to the other.
import { album } from "./album.js";
import { element, find, say } from "./dom.js";
import { Editor } from "./editor.js";
import { Gallery } from "./gallery.js";
import { listen } from "./intake.js";
import { Live } from "./live.js";
import { address, answers, models } from "./service.js";

const SAMPLES = [["nagasaki-boats.jpg", "Boats at Nagasaki", 1024 / 819], ["dust-bowl-home.jpg", "A home in the Dust Bowl", 1024 / 788], ["french-alpine-landscape.jpg", "The French Alps", 1024 / 484]];
const MANY = 5; // coloured pictures whose loss deserves a question; an edited one deserves it by itself

let isLeaving = false; // Back is under way; a second one would leave the cards too

const editor = new Editor(), live = new Live(), gallery = new Gallery(picture => open(picture));

/** Shows a view, and makes the browser's Back lead to the one before. picture: of the editor. */
function show(view, picture = null, { isBack = false } = {}) {
  const before = document.body.dataset.view;
  if (before === "live" && view !== "live") live.stop();
  if (before === "editor" && view !== "editor") editor.close();
  document.body.dataset.view = view;
  find(view === "live" ? "tab-live" : "tab-pictures").setAttribute("aria-current", "page");
  find(view === "live" ? "tab-pictures" : "tab-live").removeAttribute("aria-current");
  const state = { view, picture: picture?.id ?? null };
  // "#/": no element is called so, or Back would scroll to it and take the focus away.
  if (!isBack && before !== view) history.pushState({ ...state, before }, "", view === "welcome" ? "." : `#/${view}`);
  else if (!isBack) history.replaceState({ ...state, before: history.state?.before }, "");
  document.title = { editor: picture && `${picture.name} – colorize`, live: "Live – colorize" }[view] ?? "colorize";
  if (view !== before) scrollTo(0, 0);
}

function open(picture) {
  show("editor", picture);
  enter(picture);
}

function enter(picture) {
  editor.open(picture);
  gallery.mark(picture);
  const place = album.pictures.indexOf(picture);
  find("previous").disabled = place === 0;
  find("next").disabled = place === album.pictures.length - 1;
  find("stage").focus({ preventScroll: true });
}

/** From the editor to the cards: where they were before it, as the browser's Back, which would else find the picture once more. */
function goBack() {
  const { picture } = editor;
  if (history.state?.before === "gallery") {
    if (!isLeaving) history.back();
    isLeaving = true;
    return;
  }
  show(home());
  gallery.focus(picture);
}

const home = () => album.pictures.length ? "gallery" : "welcome";

function turn(step) {
  const picture = album.pictures[album.pictures.indexOf(editor.picture) + step];
  if (picture) open(picture);
}

listen(files => {
  const added = album.add(files);
  if (album.pictures.length === 1) open(added[0]); else show("gallery");
});
album.addEventListener("list", () => { if (!album.pictures.length) show("welcome"); });

find("wordmark").addEventListener("click", event => {
  if (event.ctrlKey || event.metaKey || event.shiftKey) return; // a page of its own
  event.preventDefault();
  if (document.body.dataset.view === "editor") goBack(); else show(home());
});
find("back").addEventListener("click", goBack);
find("previous").addEventListener("click", () => turn(-1));
find("next").addEventListener("click", () => turn(1));
find("editor").addEventListener("keydown", event => { if (event.key === "Escape" && !event.defaultPrevented) goBack(); });
find("tab-pictures").addEventListener("click", () => { if (document.body.dataset.view === "live") show(home()); });
find("tab-live").addEventListener("click", () => show("live"));

addEventListener("popstate", ({ state }) => {
  if (!state) return; // "Skip to the pictures" is an entry of its own, in the same view
  const picture = album.pictures.find(({ id }) => id === state.picture);
  const view = state.view === "live" || state.view === "editor" && picture ? state.view : home();
  const { picture: left } = editor;
  isLeaving = false;
  show(view, picture, { isBack: true });
  if (view === "editor") enter(picture); else if (view === "gallery" && left) gallery.focus(left);
});
history.replaceState({ view: "welcome", picture: null }, "", ".");
addEventListener("beforeunload", event => {
  const { unsaved } = album;
  if (unsaved.length >= MANY || unsaved.some(({ isEdited }) => isEdited)) event.preventDefault();
});

for (const [name, title, aspect] of SAMPLES) {
  const url = address(`static/sample/${name}`);
  const button = element("button", { type: "button" }, element("img", { src: url, alt: title, width: Math.round(1024), height: Math.round(1024 / aspect) }), element("span", {}, "Colour it"));
  button.addEventListener("click", async () => {
    const blob = await (await fetch(url)).blob();
    open(album.add([{ file: new File([blob], name, { type: blob.type }), path: name }])[0]);
  });
  const item = element("li", {}, button);
  item.style.setProperty("--aspect", aspect);
  find("samples").append(item);
}

let isListed = false; // or on the way there

/** At the start, and where that failed (no key, no service), when a request has been answered. */
async function listModels() {
  if (isListed) return;
  isListed = true;
  try {
    const { default: first, models: all } = await models();
    find("model").replaceChildren(...all.map(({ name }) => element("option", { value: name, selected: name === first }, name)));
    find("model-choice").hidden = all.length < 2;
    find("model-name").textContent = all.length < 2 ? `Model ${first}` : "";
  } catch (error) {
    isListed = false;
    say(error.message);
  }
}
answers.addEventListener("answered", listModels);
find("model").addEventListener("change", event => album.setAll({ model: event.target.value }));
listModels();
