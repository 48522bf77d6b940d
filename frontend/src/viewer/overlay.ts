/**
 * Draws masks and prompts above the image. It holds no state but the pictures of the masks it drew
 * last: run lengths rest in the session, bitmaps exist for the slice on screen only.
 */
import type { Box, Prompts } from "../contract";
import type { RunLengths } from "../session/masks";
import { outline } from "./outline";
import { scaleOf, toScreen, type SlicePoint, type Transform } from "./frames";

export interface Layer {
  readonly mask: RunLengths;
  readonly color: string; // #rrggbb
  readonly isCurrent: boolean; // the label that is being delineated, drawn more strongly
}

export interface Scene {
  readonly layers: readonly Layer[];
  readonly prompts: Prompts;
  readonly isAsking: boolean; // the prompts wait for an answer
}

/** What is under way with the pointer. */
export interface Sketch {
  readonly cursor: { readonly at: SlicePoint; readonly radius: number } | null;
  readonly stroke: { readonly path: readonly SlicePoint[]; readonly radius: number; readonly color: string } | null;
  readonly box: { readonly from: SlicePoint; readonly to: SlicePoint } | null;
}

interface Picture {
  readonly color: string;
  readonly fill: HTMLCanvasElement;
  readonly edge: Path2D;
}

const FILL_ALPHA = { current: 0.35, other: 0.14 };
const POSITIVE = "#3ddc84";
const NEGATIVE = "#ff5d5d";
const BOX = "#ffd866";

/** Makes a function that draws scenes onto `canvas`, at the screen's resolution. */
export function sceneDrawer(canvas: HTMLCanvasElement): (scene: Scene, transform: Transform) => void {
  let pictures = new Map<RunLengths, Picture>();
  return (scene, transform) => {
    const context = cleared(canvas);
    const shown = new Map<RunLengths, Picture>();
    for (const { mask, color, isCurrent } of scene.layers) {
      const known = pictures.get(mask);
      const picture = known?.color === color ? known : depict(mask, color);
      shown.set(mask, picture);
      context.globalAlpha = isCurrent ? FILL_ALPHA.current : FILL_ALPHA.other;
      drawFill(context, picture.fill, transform);
      context.globalAlpha = isCurrent ? 1 : 0.7;
      drawEdge(context, picture, transform);
    }
    pictures = shown;
    context.globalAlpha = 1;
    drawPrompts(context, scene, transform);
  };
}

/** Makes a function that draws what the pointer is doing onto `canvas`. */
export function sketchDrawer(canvas: HTMLCanvasElement): (sketch: Sketch, transform: Transform) => void {
  return ({ cursor, stroke, box }, transform) => {
    // An empty canvas would still be blended into every frame.
    canvas.hidden = cursor === null && stroke === null && box === null;
    if (canvas.hidden) return;
    const context = cleared(canvas);
    if (stroke !== null) drawStroke(context, stroke, transform);
    if (box !== null) {
      drawBox(context, { x0: box.from.x, y0: box.from.y, x1: box.to.x, y1: box.to.y }, transform);
    }
    if (cursor !== null) drawCursor(context, cursor, transform);
  };
}

/** Empties the canvas, fits it to its element at the screen's resolution, and draws in CSS pixels. */
function cleared(canvas: HTMLCanvasElement): CanvasRenderingContext2D {
  const context = contextOf(canvas);
  const ratio = window.devicePixelRatio;
  const [width, height] = [Math.round(canvas.clientWidth * ratio), Math.round(canvas.clientHeight * ratio)];
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.clearRect(0, 0, width, height);
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  return context;
}

/**
 * "willReadFrequently" keeps a canvas off the GPU. Measured at 976 × 761 with a ragged mask of 8000 edges
 * in software-rendered Chromium: 34 ms to the screen, where a canvas on the GPU took 700 and, once, did
 * not show that it had been cleared.
 */
function contextOf(canvas: HTMLCanvasElement): CanvasRenderingContext2D {
  const context = canvas.getContext("2d", { willReadFrequently: true });
  if (context === null) throw new Error("This browser has no 2D canvas.");
  return context;
}

function depict(mask: RunLengths, color: string): Picture {
  const fill = document.createElement("canvas");
  Object.assign(fill, { width: mask.width, height: mask.height });
  const context = contextOf(fill);
  const image = context.createImageData(mask.width, mask.height);
  const words = new Uint32Array(image.data.buffer);
  const word = littleEndianPixel(color);
  let position = 0;
  mask.counts.forEach((count, run) => {
    if (run % 2 === 1) words.fill(word, position, position + count);
    position += count;
  });
  context.putImageData(image, 0, 0);
  const edge = new Path2D();
  for (const { x0, y0, x1, y1 } of outline(mask)) {
    edge.moveTo(x0, y0);
    edge.lineTo(x1, y1);
  }
  return { color, fill, edge };
}

function littleEndianPixel(color: string): number {
  const rgb = parseInt(color.slice(1), 16);
  return ((0xff << 24) | ((rgb & 0xff) << 16) | (rgb & 0xff00) | (rgb >> 16)) >>> 0;
}

function drawFill(context: CanvasRenderingContext2D, fill: HTMLCanvasElement, { a, b, c, d, e, f }: Transform): void {
  context.save();
  context.transform(a, b, c, d, e, f);
  context.imageSmoothingEnabled = false;
  context.drawImage(fill, 0, 0);
  context.restore();
}

function drawEdge(context: CanvasRenderingContext2D, { color, edge }: Picture, transform: Transform): void {
  // Carried to the screen before it is stroked, so that pixels that are not square keep an even line.
  const onScreen = new Path2D();
  onScreen.addPath(edge, new DOMMatrix(matrixOf(transform)));
  context.lineWidth = 1.5;
  context.lineCap = "square";
  context.strokeStyle = color;
  context.stroke(onScreen);
}

function drawPrompts(context: CanvasRenderingContext2D, { prompts, isAsking }: Scene, transform: Transform): void {
  if (prompts.box !== null) drawBox(context, prompts.box, transform);
  for (const { x, y, positive } of prompts.points) {
    const { left, top } = toScreen(transform, { x: x + 0.5, y: y + 0.5 });
    context.beginPath();
    context.arc(left, top, 6, 0, 2 * Math.PI);
    context.fillStyle = positive ? POSITIVE : NEGATIVE;
    context.globalAlpha = isAsking ? 0.55 : 1;
    context.fill();
    context.globalAlpha = 1;
    context.lineWidth = 1.5;
    context.strokeStyle = "#0b0d10";
    context.stroke();
    context.beginPath();
    context.moveTo(left - 3, top);
    context.lineTo(left + 3, top);
    if (positive) {
      context.moveTo(left, top - 3);
      context.lineTo(left, top + 3);
    }
    context.stroke();
  }
}

function drawBox(context: CanvasRenderingContext2D, { x0, y0, x1, y1 }: Box, transform: Transform): void {
  const corners = [
    { x: x0, y: y0 },
    { x: x1, y: y0 },
    { x: x1, y: y1 },
    { x: x0, y: y1 },
  ].map((corner) => toScreen(transform, corner));
  context.beginPath();
  corners.forEach(({ left, top }) => context.lineTo(left, top));
  context.closePath();
  context.lineWidth = 1.5;
  context.strokeStyle = BOX;
  context.stroke();
}

function drawStroke(
  context: CanvasRenderingContext2D,
  { path, radius, color }: NonNullable<Sketch["stroke"]>,
  { a, b, c, d, e, f }: Transform,
): void {
  context.save();
  context.transform(a, b, c, d, e, f);
  context.globalAlpha = 0.45;
  context.strokeStyle = color;
  context.lineWidth = 2 * radius;
  context.lineCap = "round";
  context.lineJoin = "round";
  context.beginPath();
  path.forEach(({ x, y }) => context.lineTo(x, y));
  const [only] = path;
  if (path.length === 1 && only !== undefined) context.lineTo(only.x + 1e-3, only.y);
  context.stroke();
  context.restore();
}

function drawCursor(
  context: CanvasRenderingContext2D,
  { at, radius }: NonNullable<Sketch["cursor"]>,
  transform: Transform,
): void {
  const { a, b, c, d, e, f } = transform;
  const circle = new Path2D();
  circle.arc(at.x, at.y, radius, 0, 2 * Math.PI);
  const onScreen = new Path2D();
  onScreen.addPath(circle, new DOMMatrix([a, b, c, d, e, f]));
  // Dark under light: to be seen on bone and on air.
  context.lineWidth = scaleOf(transform) * radius < 3 ? 1 : 3;
  context.strokeStyle = "rgba(0, 0, 0, 0.6)";
  context.stroke(onScreen);
  context.lineWidth = 1.2;
  context.strokeStyle = "#ffffff";
  context.stroke(onScreen);
}

function matrixOf({ a, b, c, d, e, f }: Transform): number[] {
  return [a, b, c, d, e, f];
}
