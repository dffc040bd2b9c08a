// The API key: asked for when the service answers 401, kept in this tab's sessionStorage and nowhere else.
import { find } from "./dom.js";

const NAME = "colorize-key";
let asking = null;
let isDeclined = false; // "Not now" holds for all requests that are under way or wait, until the user does something anew

export const current = () => sessionStorage.getItem(NAME);

/** Asks for a key, once however many requests were refused. refused: the key that they had. Answers whether there is one to try now. */
export function ask(refused) {
  if (current() && current() !== refused) return Promise.resolve(true); // another request has asked meanwhile
  if (isDeclined) return Promise.resolve(false);
  asking ??= show(refused).finally(() => { asking = null; });
  return asking;
}

/** The user wants something of the service again, so a key may be asked for again. */
export function allowAsking() { isDeclined = false; }

function show(refused) {
  const dialog = find("key-dialog"), form = find("key-form"), field = find("key");
  find("key-reason").textContent = refused ? "The service does not accept this key." : "";
  field.value = "";
  dialog.showModal();
  return new Promise(resolve => {
    const done = new AbortController();
    const end = given => { done.abort(); dialog.close(); resolve(given); };
    form.addEventListener("submit", event => {
      event.preventDefault();
      sessionStorage.setItem(NAME, field.value.trim());
      end(true);
    }, done);
    const decline = () => { isDeclined = true; end(false); };
    find("key-cancel").addEventListener("click", decline, done);
    dialog.addEventListener("cancel", decline, done);
  });
}
