/**
 * Many files as one tar: a Blob that refers to them and reads none, so that thousands are one upload at no cost.
 * A header has no checksum of its content, only of itself. Dates and owners are left out: nobody asks for them.
 */
const BLOCK = 512;
const LARGEST_IN_HEADER = 8 ** 11 - 1;
const NAME_BYTES = 100;
const utf8 = new TextEncoder();

export interface Source {
  readonly path: string;
  readonly file: Blob;
}

export interface Tar {
  readonly blob: Blob;
  /** Where each file's content ends in it. */
  readonly ends: readonly number[];
}

export function tarOf(sources: readonly Source[]): Tar {
  const parts: BlobPart[] = [];
  const ends: number[] = [];
  let at = 0;
  const add = (part: Uint8Array<ArrayBuffer> | Blob, size: number) => {
    parts.push(part);
    at += size;
  };
  for (const { path, file } of sources) {
    for (const block of headersOf(path, file.size)) add(block, block.length);
    add(file, file.size);
    ends.push(at);
    const padding = -at & (BLOCK - 1);
    if (padding > 0) add(new Uint8Array(padding), padding);
  }
  add(new Uint8Array(2 * BLOCK), 2 * BLOCK);
  return { blob: new Blob(parts), ends };
}

function headersOf(path: string, size: number): Uint8Array<ArrayBuffer>[] {
  const name = utf8.encode(path);
  const records = [
    ...(name.length > NAME_BYTES ? [record("path", path)] : []),
    ...(size > LARGEST_IN_HEADER ? [record("size", String(size))] : []),
  ];
  const said = utf8.encode(records.join(""));
  const own = header(name.subarray(0, NAME_BYTES), Math.min(size, LARGEST_IN_HEADER), "0");
  if (said.length === 0) return [own];
  const padded = new Uint8Array(Math.ceil(said.length / BLOCK) * BLOCK);
  padded.set(said);
  return [header(utf8.encode("pax"), said.length, "x"), padded, own];
}

/** pax: "length keyword=value\n", where the length is that of all of it, its own digits included. */
function record(keyword: string, value: string): string {
  const rest = utf8.encode(` ${keyword}=${value}\n`).length;
  let length = rest;
  while (length !== rest + String(length).length) length = rest + String(length).length;
  return `${length} ${keyword}=${value}\n`;
}

function header(name: Uint8Array, size: number, kind: string): Uint8Array<ArrayBuffer> {
  const block = new Uint8Array(BLOCK);
  const write = (text: string, at: number) => block.set(utf8.encode(text), at);
  block.set(name);
  write("0000644\0" + "0000000\0" + "0000000\0", 100);
  write(`${size.toString(8).padStart(11, "0")}\0` + "00000000000\0", 124);
  write(" ".repeat(8), 148);
  write(kind, 156);
  write("ustar\0" + "00", 257);
  const sum = block.reduce((total, byte) => total + byte, 0);
  write(`${sum.toString(8).padStart(6, "0")}\0 `, 148);
  return block;
}
