/**
 * One series on screen: the only module that knows Cornerstone3D.
 *
 * Cornerstone loads, decodes and draws the image below our overlay. Its tools are not used: their
 * mouse-down waits 400 ms for a double click, and drawing masks through its labelmaps takes 110–540 ms
 * an update in software WebGL, an overlay canvas 26.
 */
import {
  cache,
  Enums,
  eventTarget,
  imageLoader,
  init as initCore,
  RenderingEngine,
  type StackViewport,
  type Types,
} from "@cornerstonejs/core";
import dicomImageLoader from "@cornerstonejs/dicom-image-loader";
import { toScreen, toSlice, transformThrough, type ScreenPoint, type SlicePoint, type Transform } from "./frames";
import { bounds, fullRange, type Window } from "./windows";

/** Where a series' frames are: WADO-RS below `root`, one entry per slice in the order of display. */
export interface Source {
  readonly root: string; // …/dicomweb/<project>/studies/<uid>/series/<uid>
  readonly slices: readonly { readonly sop_instance_uid: string; readonly frame_number: number }[];
}

export interface ImageStack {
  /** Show a slice; resolves when it is on screen. */
  readonly show: (index: number) => Promise<void>;
  readonly setWindow: (window: Window) => void;
  /** The window that shows all values of the slice on screen. */
  readonly fullWindow: () => Window | null;
  readonly zoomAt: (anchor: ScreenPoint, factor: number) => void;
  readonly pan: (by: ScreenPoint) => void;
  readonly fit: () => void;
  readonly transform: () => Transform | null;
  /** Share of the size at which the slice fits the view. */
  readonly zoom: () => number;
  /** Modality values of the pixel: one, or red, green and blue. */
  readonly valuesAt: (point: SlicePoint) => readonly number[] | null;
  readonly close: () => void;
}

export interface StackEvents {
  /** The picture or its place on screen has changed: what lies above must be drawn again. */
  readonly onDrawn: () => void;
  /** The slice could not be shown. */
  readonly onProblem: (sentence: string) => void;
}

const CACHE_BYTES = 1024 ** 3;
const PREFETCH = [1, -1, 2, -2, 3, 4];
const ZOOM_LIMITS = { least: 0.2, most: 40 };

let engines = 0;

/** Raises an Error with a sentence when the series' metadata cannot be had. */
export async function openStack(
  element: HTMLDivElement,
  { source, events, signal }: { source: Source; events: StackEvents; signal: AbortSignal },
): Promise<ImageStack> {
  start();
  const imageIds = await register(source, signal);
  signal.throwIfAborted();
  const viewportId = `stack-${++engines}`;
  const engine = new RenderingEngine(`engine-${engines}`);
  engine.enableElement({ viewportId, type: Enums.ViewportType.STACK, element });
  const viewport = engine.getViewport<StackViewport>(viewportId);
  const resizing = new ResizeObserver(() => engine.resize(true, true));
  resizing.observe(element);
  element.addEventListener(Enums.Events.IMAGE_RENDERED, events.onDrawn);
  const onFailure = (event: Event) => {
    const failed = (event as CustomEvent<{ imageId?: string }>).detail.imageId;
    // Neighbours are fetched ahead; a failure matters when its slice is on screen.
    if (failed === wanted) events.onProblem("This slice's image could not be loaded or decoded.");
  };
  // A failed decode rejects nothing: it arrives as an event.
  const failures = [Enums.Events.IMAGE_LOAD_ERROR, Enums.Events.IMAGE_LOAD_FAILED];
  failures.forEach((name) => eventTarget.addEventListener(name, onFailure));
  let wanted: string | undefined;
  let isStacked = false;

  const show = async (index: number) => {
    wanted = imageIds[index];
    if (isStacked) {
      await viewport.setImageIdIndex(index);
    } else {
      isStacked = true;
      await viewport.setStack([...imageIds], index);
    }
    viewport.render();
    prefetch(imageIds, index);
  };

  const transform = (): Transform | null => {
    const image = (isStacked ? viewport.getImageData() : undefined) as Types.IImageData | undefined;
    if (image === undefined) return null;
    // Cornerstone's own image coordinates are wrong for pixels that are not square; the world's are
    // right. An index is a pixel's centre, half a pixel into it.
    const at = (x: number, y: number) => {
      const world = image.imageData.indexToWorld([x - 0.5, y - 0.5, 0]);
      const [left, top] = viewport.worldToCanvas([world[0], world[1], world[2]]);
      return { left, top };
    };
    return transformThrough(at(0, 0), at(1, 0), at(0, 1));
  };

  const pan = ({ left, top }: ScreenPoint) => {
    const [x, y] = viewport.getPan();
    viewport.setPan([x + left, y + top]);
    viewport.render();
  };

  const zoomAt = (anchor: ScreenPoint, factor: number) => {
    const before = transform();
    if (before === null) return;
    const held = toSlice(before, anchor);
    const zoom = Math.min(Math.max(viewport.getZoom() * factor, ZOOM_LIMITS.least), ZOOM_LIMITS.most);
    viewport.setZoom(zoom);
    const after = transform();
    if (after === null) return;
    const moved = toScreen(after, held);
    pan({ left: anchor.left - moved.left, top: anchor.top - moved.top });
  };

  return {
    show,
    pan,
    zoomAt,
    transform,
    setWindow: (window) => {
      const { lower, upper } = bounds(window);
      viewport.setProperties({ voiRange: { lower, upper } });
      viewport.render();
    },
    fullWindow: () => {
      const image = imageOn(viewport);
      if (image === undefined || image.color) return null;
      const { slope, intercept } = rescaleOf(image);
      const [low, high] = extent(image.getPixelData());
      return fullRange(low * slope + intercept, high * slope + intercept);
    },
    fit: () => {
      viewport.resetCamera();
      viewport.render();
    },
    zoom: () => viewport.getZoom(),
    valuesAt: ({ x, y }) => {
      const image = imageOn(viewport);
      if (image === undefined) return null;
      const [column, row] = [Math.floor(x), Math.floor(y)];
      if (column < 0 || row < 0 || column >= image.columns || row >= image.rows) return null;
      const { slope, intercept } = rescaleOf(image);
      const components = image.numberOfComponents;
      const first = (row * image.columns + column) * components;
      const values = Array.from(image.getPixelData().slice(first, first + Math.min(components, 3)), Number);
      return values.map((value) => value * slope + intercept);
    },
    close: () => {
      resizing.disconnect();
      element.removeEventListener(Enums.Events.IMAGE_RENDERED, events.onDrawn);
      failures.forEach((name) => eventTarget.removeEventListener(name, onFailure));
      engine.destroy();
    },
  };
}

/** Declared to be there always; before the first slice has been decoded it is not. */
function imageOn(viewport: StackViewport): Types.IImage | undefined {
  return viewport.getCornerstoneImage();
}

/** What is left to do to the pixel values to make them modality values. */
function rescaleOf({ color, preScale, slope, intercept }: Types.IImage): { slope: number; intercept: number } {
  return color || preScale?.scaled === true ? { slope: 1, intercept: 0 } : { slope, intercept };
}

let isStarted = false;

function start(): void {
  if (isStarted) return;
  isStarted = true;
  // One WebGL context: one view is on screen, and browsers give only a few.
  initCore({ rendering: { webGlContextCount: 1 }, debug: {} });
  dicomImageLoader.init({ maxWebWorkers: Math.min(2, Math.max(1, navigator.hardwareConcurrency - 1)) });
  cache.setMaxCacheSize(CACHE_BYTES);
}

/** Tells the loader each instance's metadata and gives the slices' image ids. */
async function register({ root, slices }: Source, signal: AbortSignal): Promise<string[]> {
  const response = await fetch(`${root}/metadata`, { headers: { Accept: "application/dicom+json" }, signal });
  if (!response.ok) throw new Error("The series' description could not be loaded; try again.");
  const instances = parseInstances(await response.json());
  return slices.map(({ sop_instance_uid, frame_number }) => {
    const imageId = `wadors:${absolute(root)}/instances/${sop_instance_uid}/frames/${frame_number}`;
    const instance = instances.get(sop_instance_uid);
    if (instance === undefined) throw new Error("A slice of this task is missing from its series; reload the page.");
    dicomImageLoader.wadors.metaDataManager.add(imageId, instance);
    return imageId;
  });
}

type Instance = Parameters<typeof dicomImageLoader.wadors.metaDataManager.add>[1];

function parseInstances(value: unknown): Map<string, Instance> {
  if (!Array.isArray(value)) throw new Error("The series' description is not what it should be; reload the page.");
  return new Map(
    value.map((instance: Record<string, { Value?: unknown[] } | undefined>) => [
      String(instance["00080018"]?.Value?.[0]),
      withModality(instance) as Instance,
    ]),
  );
}

/** Cornerstone asks every image's modality whether it is nuclear medicine, and shows none that has no modality. */
function withModality(instance: Record<string, { Value?: unknown[] } | undefined>): Record<string, unknown> {
  return instance["00080060"]?.Value?.[0] === undefined ? { ...instance, "00080060": { vr: "CS", Value: ["OT"] } } : instance;
}

function absolute(path: string): string {
  return new URL(path, window.location.href).href;
}

function prefetch(imageIds: readonly string[], index: number): void {
  for (const offset of PREFETCH) {
    const imageId = imageIds[index + offset];
    if (imageId !== undefined && !cache.isLoaded(imageId)) {
      imageLoader.loadAndCacheImage(imageId).catch(() => undefined); // told when it is shown
    }
  }
}

function extent(values: ArrayLike<number>): [number, number] {
  let [low, high] = [Infinity, -Infinity];
  for (let i = 0; i < values.length; i++) {
    const value = values[i] ?? 0;
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return [low, high];
}
