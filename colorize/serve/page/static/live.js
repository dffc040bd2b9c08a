// The camera over `WS /v1/stream`: frames go out grey, come back coloured, and are shown beside the very frame that they were made from.
// The latest frame wins: a frame is taken from the camera only when fewer than IN_FLIGHT are under way, so none ever waits in a queue.
import { album } from "./album.js";
import { Divider } from "./divider.js";
import { element, find, speak } from "./dom.js";
import * as key from "./key.js";
import { address, models, plain } from "./service.js";

const WIDTH = 320, HEIGHT = 240, IN_FLIGHT = 2, QUALITY = 0.85;
const WINDOW_MS = 2000; // over which frames a second and delay are averaged
const LOST_FRAME_MS = 5000;
const TRIES = 4; // to reach the service, one after another

const TROUBLE = {
  NotAllowedError: "The camera may not be used: allow it beside this page’s address.",
  NotFoundError: "There is no camera.",
  NotReadableError: "The camera is in use by another program.",
};

const release = media => { for (const track of media?.getTracks() ?? []) track.stop(); };

export class Live {
  #video = element("video", { muted: true, playsInline: true });
  #grab = new OffscreenCanvas(WIDTH, HEIGHT);
  #before = find("live-before").getContext("2d");
  #after = find("live-after").getContext("2d");
  #socket = null;
  #media = null;
  #model = null; // the one that the stream was asked for
  #turn = 0; // raised by stop(): a start of an earlier turn gives back the camera that it gets
  #sent = new Map(); // frame → {at, bitmap}
  #count = 0; // frames sent over this socket
  #first = null; // the number that the service gives to the first frame
  #coming = null; // what was said of the next picture
  #shown = []; // [{at, delay}] within the window
  #reason = null; // why the service ends the stream
  #dropped = 0; // frames that the service has left out, by its own count
  #tries = 0;

  constructor() {
    const monitor = find("monitor");
    this.divider = new Divider(find("live-divider"), monitor, () => ({ left: 0, width: monitor.clientWidth }), () => monitor.style.setProperty("--split", `${100 * this.divider.value}%`));
    new ResizeObserver(() => this.divider.place()).observe(monitor);
    find("live-start").addEventListener("click", () => { if (this.#media) this.stop(); else this.start(); });
    find("live-vividness").addEventListener("input", event => speak(event.target));
    find("live-vividness").addEventListener("change", () => { if (this.#media) this.#connect(); });
    album.addEventListener("wishes", () => { if (this.#media && album.model !== this.#model) this.#connect(); });
    find("camera").addEventListener("change", () => { if (this.#media) this.start(find("camera").value); });
  }

  async start(camera) {
    this.stop();
    if (!navigator.mediaDevices) return this.#note("A camera can be used over https or on this machine only.");
    const turn = this.#turn;
    key.allowAsking();
    this.#note("Starting the camera…");
    try {
      const which = camera ? { deviceId: { exact: camera } } : { facingMode: "environment" };
      const video = { width: { ideal: 640 }, height: { ideal: 480 }, ...which };
      const media = await navigator.mediaDevices.getUserMedia({ audio: false, video });
      if (turn !== this.#turn) return release(media);
      this.#video.srcObject = this.#media = media;
      await this.#video.play();
      if (turn !== this.#turn) return undefined;
    } catch (error) {
      if (turn !== this.#turn) return undefined;
      this.stop();
      return this.#note(TROUBLE[error.name] ?? `The camera does not start: ${error.message}`);
    }
    find("live-start").textContent = "Stop the camera";
    this.#tries = 0;
    this.#connect();
    this.#listCameras();
    this.#watch(this.#media);
    return undefined;
  }

  stop() {
    this.#turn += 1;
    release(this.#media);
    this.#media = null;
    this.#video.srcObject = null;
    this.#disconnect();
    find("live-start").textContent = "Start the camera";
    for (const id of ["live-rate", "live-delay", "live-dropped"]) find(id).textContent = "–";
    this.#note("The camera is off.");
  }

  #note(text) { find("live-note").textContent = text; }

  async #listCameras() {
    const cameras = (await navigator.mediaDevices.enumerateDevices()).filter(({ kind }) => kind === "videoinput");
    const used = this.#media?.getVideoTracks()[0].getSettings().deviceId;
    find("camera-choice").hidden = cameras.length < 2;
    find("camera").replaceChildren(...cameras.map(({ deviceId, label }, index) => element("option", { value: deviceId, selected: deviceId === used }, label || `Camera ${index + 1}`)));
  }

  #connect() {
    this.#disconnect();
    const url = address("v1/stream");
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    url.searchParams.set("vividness", find("live-vividness").value);
    this.#model = album.model;
    if (this.#model) url.searchParams.set("model", this.#model);
    let socket;
    try { // a browser can send a key in no other way; the protocol beside it is what the service answers with
      socket = new WebSocket(url, key.current() ? ["colorize", `key.${key.current()}`] : []);
    } catch {
      this.stop();
      return this.#note("The API key has characters that a browser cannot send here: letters, digits, - and _ can be sent.");
    }
    this.#socket = socket;
    socket.binaryType = "blob";
    this.#note("Waiting for the first frame…");
    socket.addEventListener("message", ({ data }) => { if (socket === this.#socket) this.#receive(data); });
    socket.addEventListener("close", () => { if (socket === this.#socket) this.#lost(); });
    return undefined;
  }

  #disconnect() {
    this.#socket?.close();
    this.#socket = null;
    for (const { bitmap } of this.#sent.values()) bitmap.close();
    this.#sent.clear();
    this.#count = 0;
    this.#dropped = 0;
    this.#first = this.#coming = this.#reason = null;
    this.#shown = [];
  }

  async #lost() {
    const reason = this.#reason ?? (++this.#tries > TRIES ? "The service does not answer. Is it still running?" : null);
    this.#disconnect();
    if (reason) {
      this.stop();
      return this.#note(reason);
    }
    this.#note("The connection is lost. Trying again…");
    await new Promise(resolve => setTimeout(resolve, 500 * this.#tries));
    try {
      if (this.#media) await models(); // a WebSocket does not say that a key is missing; this asks for one
    } catch { /* the next try says what is wrong */ }
    if (this.#media && !this.#socket) this.#connect();
    return undefined;
  }

  /** Sends frames as the camera gives them, as long as it runs. */
  #watch(media) {
    const next = () => { if (this.#media === media) this.#video.requestVideoFrameCallback(() => { this.#send(); next(); }); };
    next();
  }

  async #send() {
    const socket = this.#socket, now = performance.now();
    for (const [frame, { at, bitmap }] of this.#sent) if (now - at > LOST_FRAME_MS) { bitmap.close(); this.#sent.delete(frame); }
    // Until the first answer only one: it tells which number the service gives to it.
    if (socket?.readyState !== WebSocket.OPEN || this.#sent.size >= (this.#first === null ? 1 : IN_FLIGHT)) return;
    const frame = this.#count++;
    const bitmap = this.#grey();
    this.#sent.set(frame, { at: now, bitmap });
    const blob = await this.#grab.convertToBlob({ type: "image/jpeg", quality: QUALITY });
    if (socket.readyState === WebSocket.OPEN) socket.send(blob);
  }

  /** The camera's picture, cropped to 4:3, without its colours. */
  #grey() {
    const { videoWidth, videoHeight } = this.#video, context = this.#grab.getContext("2d");
    const scale = Math.max(WIDTH / videoWidth, HEIGHT / videoHeight), width = videoWidth * scale, height = videoHeight * scale;
    context.globalCompositeOperation = "source-over";
    context.drawImage(this.#video, (WIDTH - width) / 2, (HEIGHT - height) / 2, width, height);
    context.globalCompositeOperation = "saturation";
    context.fillStyle = "#808080";
    context.fillRect(0, 0, WIDTH, HEIGHT);
    const copy = new OffscreenCanvas(WIDTH, HEIGHT);
    copy.getContext("2d").drawImage(this.#grab, 0, 0);
    return copy.transferToImageBitmap();
  }

  async #receive(data) {
    if (typeof data === "string") {
      const said = JSON.parse(data);
      if (said.error) this.#note(plain(said.error));
      if (said.frame === undefined) { // about the stream, which the service now ends
        this.#reason = said.error && plain(said.error);
        return undefined;
      }
      this.#first ??= said.frame;
      this.#dropped = Math.max(this.#dropped, said.dropped ?? 0);
      this.#coming = { frame: said.frame - this.#first, isBad: Boolean(said.error) };
      if (said.error) this.#forget(this.#coming.frame);
      return undefined;
    }
    if (!this.#coming) return undefined;
    const { frame } = this.#coming, sent = this.#sent.get(frame), socket = this.#socket;
    this.#coming = null;
    const colored = await createImageBitmap(data);
    if (socket !== this.#socket) return colored.close(); // stopped meanwhile, which the note says
    if (sent && this.#sent.has(frame)) {
      this.#before.drawImage(sent.bitmap, 0, 0);
      this.#measure(sent.at);
    }
    this.#after.drawImage(colored, 0, 0, WIDTH, HEIGHT);
    colored.close();
    this.#forget(frame);
    this.#note("");
    this.#tries = 0;
    return undefined;
  }

  /** Of a frame that has come back, and of those before it: what the service has left out does not come. */
  #forget(frame) {
    for (const [number, { bitmap }] of this.#sent) if (number <= frame) { bitmap.close(); this.#sent.delete(number); }
  }

  #measure(at) {
    const now = performance.now();
    this.#shown = [...this.#shown.filter(shown => now - shown.at < WINDOW_MS), { at: now, delay: now - at }];
    const { length } = this.#shown, span = now - this.#shown[0].at;
    find("live-rate").textContent = length > 2 ? ((length - 1) / span * 1000).toFixed(1) : "…";
    find("live-delay").textContent = `${Math.round(this.#shown.reduce((sum, { delay }) => sum + delay, 0) / length)} ms`;
    find("live-dropped").textContent = this.#dropped.toLocaleString("en");
  }
}
