// What needs pixels, off the main thread: createImageBitmap decodes here, so the page scrolls while 200 scans become thumbnails.
// A job is {id, name, blob, side}; its answer {id, result} or {id, error}.

const JOBS = { look, reduce, grey, doubt };

self.addEventListener("message", async ({ data: { id, name, blob, side } }) => {
  try {
    self.postMessage({ id, result: await JOBS[name](blob, side) });
  } catch (error) {
    self.postMessage({ id, error: String(error) });
  }
});

/** The upright size, and a thumbnail whose longer side is `side`. */
async function look(blob, side) {
  const bitmap = await createImageBitmap(blob);
  const { width, height } = bitmap;
  return { width, height, thumbnail: await jpegOf(await shrunk(bitmap, side), 0.85) };
}

/** A copy of at most `side` pixels. */
async function reduce(blob, side) {
  const bitmap = await shrunk(await createImageBitmap(blob), side);
  const { width, height } = bitmap;
  return { width, height, blob: await jpegOf(bitmap, 0.94) };
}

/** The luma of a picture that the service coloured: what its original looks like, where the browser cannot show the original. */
async function grey(blob) {
  const bitmap = await createImageBitmap(blob);
  const { width, height } = bitmap;
  return { width, height, blob: await repainted(bitmap, { type: "image/jpeg", quality: 0.95 }, (data, at) => {
    data[at] = data[at + 1] = data[at + 2] = 0.299 * data[at] + 0.587 * data[at + 1] + 0.114 * data[at + 2];
  }) };
}

/** The confidence map, white where the model is certain, as a veil that is the stronger the less it is. */
async function doubt(blob, side) {
  const bitmap = await shrunk(await createImageBitmap(blob), side);
  return { blob: await repainted(bitmap, { type: "image/png" }, (data, at) => {
    data[at + 3] = 215 * (1 - data[at] / 255) ** 2; // squared: what it is fairly sure of stays clear
    data[at] = 214, data[at + 1] = 40, data[at + 2] = 140;
  }) };
}

async function shrunk(bitmap, side) {
  const scale = side / Math.max(bitmap.width, bitmap.height);
  if (scale >= 1) return bitmap;
  const size = { resizeWidth: Math.max(1, Math.round(bitmap.width * scale)), resizeHeight: Math.max(1, Math.round(bitmap.height * scale)) };
  const small = await createImageBitmap(bitmap, { ...size, resizeQuality: "high" });
  bitmap.close();
  return small;
}

function drawn(bitmap) {
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d");
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return { canvas, context };
}

async function jpegOf(bitmap, quality) {
  return drawn(bitmap).canvas.convertToBlob({ type: "image/jpeg", quality });
}

async function repainted(bitmap, encoding, paint) {
  const { canvas, context } = drawn(bitmap);
  const image = context.getImageData(0, 0, canvas.width, canvas.height), { data } = image;
  for (let at = 0; at < data.length; at += 4) paint(data, at);
  context.putImageData(image, 0, 0);
  return canvas.convertToBlob(encoding);
}
