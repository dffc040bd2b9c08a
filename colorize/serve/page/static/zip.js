// Zip archives whose files are stored as they are (pictures do not shrink): written for "Download all", read for the candidates.
// The format: APPNOTE.TXT of PKWARE, 4.3. A file's bytes stay in its blob, which the browser may keep on disk; only its CRC passes through.

const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  for (let bit = 0; bit < 8; bit++) byte = byte & 1 ? (byte >>> 1) ^ 0xedb88320 : byte >>> 1;
  return byte;
});
const LARGEST = 0xfffffffe; // of an archive without the zip64 extension
const UTF8 = 1 << 11;

async function crcOf(blob) {
  let crc = ~0;
  for (let at = 0; at < blob.size; at += 1 << 22) {
    for (const byte of new Uint8Array(await blob.slice(at, at + (1 << 22)).arrayBuffer())) crc = TABLE[(crc ^ byte) & 255] ^ (crc >>> 8);
  }
  return ~crc >>> 0;
}

/** Little-endian numbers as bytes: [[value, bytes], …]. */
function packed(fields) {
  const view = new DataView(new ArrayBuffer(fields.reduce((sum, [, size]) => sum + size, 0)));
  let at = 0;
  for (const [value, size] of fields) {
    if (size === 2) view.setUint16(at, value, true); else view.setUint32(at, value, true);
    at += size;
  }
  return view.buffer;
}

/** One archive of [{name, blob}]; names must differ. Rejects above 4 GB. */
export async function write(files) {
  const parts = [], directory = [];
  let at = 0;
  const now = new Date();
  const time = (now.getHours() << 11) | (now.getMinutes() << 5) | (now.getSeconds() >> 1);
  const date = ((now.getFullYear() - 1980) << 9) | ((now.getMonth() + 1) << 5) | now.getDate();
  for (const { name, blob } of files) {
    const bytes = new TextEncoder().encode(name);
    const common = [[20, 2], [UTF8, 2], [0, 2], [time, 2], [date, 2], [await crcOf(blob), 4], [blob.size, 4], [blob.size, 4], [bytes.length, 2], [0, 2]];
    const local = [packed([[0x04034b50, 4], ...common]), bytes, blob];
    directory.push(packed([[0x02014b50, 4], [20, 2], ...common, [0, 2], [0, 2], [0, 2], [0, 4], [at, 4]]), bytes);
    parts.push(...local);
    at += 30 + bytes.length + blob.size;
    if (at > LARGEST) throw new Error("more than 4 GB do not fit into one zip: remove some pictures, or use “colorize archive”");
  }
  const size = directory.reduce((sum, part) => sum + part.byteLength, 0);
  const end = packed([[0x06054b50, 4], [0, 2], [0, 2], [files.length, 2], [files.length, 2], [size, 4], [at, 4], [0, 2]]);
  return new Blob([...parts, ...directory, end], { type: "application/zip" });
}

/** The stored files of an archive, in its order: [{name, blob}]. */
export async function read(archive) {
  const view = new DataView(await archive.arrayBuffer());
  let end = view.byteLength - 22;
  while (end > 0 && view.getUint32(end, true) !== 0x06054b50) end -= 1;
  const files = [];
  for (let at = view.getUint32(end + 16, true), left = view.getUint16(end + 10, true); left > 0; left--) {
    const size = view.getUint32(at + 20, true), nameLength = view.getUint16(at + 28, true), local = view.getUint32(at + 42, true);
    const start = local + 30 + view.getUint16(local + 26, true) + view.getUint16(local + 28, true);
    files.push({ name: new TextDecoder().decode(new Uint8Array(view.buffer, at + 46, nameLength)), blob: archive.slice(start, start + size) });
    at += 46 + nameLength + view.getUint16(at + 30, true) + view.getUint16(at + 32, true);
  }
  return files;
}
