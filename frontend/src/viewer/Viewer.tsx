/** The slice on screen: image below, masks and prompts above, and the pointer's tools. */
import { useEffect, useEffectEvent, useLayoutEffect, useRef, useState, type PointerEvent } from "react";
import type { Box, Point } from "../contract";
import type { RunLengths } from "../session/masks";
import type { Tool } from "../session/session";
import { sweepDisc } from "../session/strokes";
import { boxBetween, isInside, pointAt, toSlice, type ScreenPoint, type SlicePoint, type SliceSize } from "./frames";
import { press, windowAfter, zoomFactor, type Gesture } from "./gestures";
import { openStack, type ImageStack, type Source } from "./imageStack";
import { sceneDrawer, sketchDrawer, type Scene, type Sketch } from "./overlay";
import classes from "./Viewer.module.css";
import type { Window } from "./windows";

export interface ViewerProps {
  readonly source: Source;
  readonly size: SliceSize;
  readonly unit: string; // of the pixel values: "HU" for CT
  readonly sliceIndex: number;
  readonly scene: Scene;
  readonly tool: Tool;
  readonly radius: number;
  readonly color: string;
  readonly mayEdit: boolean;
  readonly window: Window | null; // null: colour
  readonly onWindow: (window: Window) => void;
  readonly onPoint: (point: Point) => void;
  readonly onBox: (box: Box) => void;
  readonly onStroke: (stroke: { mask: RunLengths; erases: boolean }) => void;
  readonly onScroll: (by: number) => void;
  /** The stack, for what the page does with it; null while it is not there. */
  readonly onStack: (stack: ImageStack | null) => void;
}

const NO_SKETCH: Sketch = { cursor: null, stroke: null, box: null };
const LEAST_BOX_PX = 3; // a shorter drag is a slip

export function Viewer(props: ViewerProps) {
  const { source, size, unit, sliceIndex, scene, tool, radius, color, mayEdit, window: voi } = props;
  const imageElement = useRef<HTMLDivElement>(null);
  const sceneCanvas = useRef<HTMLCanvasElement>(null);
  const sketchCanvas = useRef<HTMLCanvasElement>(null);
  const surface = useRef<HTMLDivElement>(null);
  const pixelReadout = useRef<HTMLSpanElement>(null);
  const zoomReadout = useRef<HTMLSpanElement>(null);
  const drawing = useRef<Drawing | null>(null);
  const gesture = useRef<Gesture | null>(null);
  const cursor = useRef<ScreenPoint | null>(null);
  const isSpaceHeld = useRef(false);
  const [stack, setStack] = useState<ImageStack | null>(null);
  const [shown, setShown] = useState<{ stack: ImageStack; index: number } | null>(null);
  const [problem, setProblem] = useState<{ index: number; sentence: string } | null>(null);
  const isShown = shown !== null && shown.stack === stack && shown.index === sliceIndex;

  const drawScene = useEffectEvent(() => {
    const transform = stack?.transform() ?? null;
    if (transform === null || drawing.current === null) return;
    // Masks are drawn over their own slice only, never over one that is still on its way out.
    if (surface.current) surface.current.dataset.transform = JSON.stringify(transform); // for who tests the page
    drawing.current.scene(isShown ? scene : { ...scene, layers: [], prompts: { points: [], box: null } }, transform);
    measurePaint();
    if (zoomReadout.current && stack) zoomReadout.current.textContent = `${Math.round(stack.zoom() * 100)} %`;
  });

  const drawSketch = useEffectEvent(() => {
    sketchNow();
  });

  function sketchNow(): void {
    const transform = stack?.transform() ?? null;
    if (transform === null || drawing.current === null) return;
    const { current } = gesture;
    const isBrush = (tool === "brush" || tool === "eraser") && mayEdit && isShown;
    drawing.current.sketch(
      {
        ...NO_SKETCH,
        cursor: isBrush && cursor.current !== null ? { at: toSlice(transform, cursor.current), radius } : null,
        stroke:
          current?.kind === "stroke" ? { path: current.path, radius, color: current.erases ? "#ffffff" : color } : null,
        box: current?.kind === "box" ? current : null,
      },
      transform,
    );
  }

  const redraw = useEffectEvent(() => {
    drawScene();
    drawSketch();
  });

  const announce = useEffectEvent((opened: ImageStack | null) => props.onStack(opened));
  const failed = useEffectEvent((sentence: string) => setProblem({ index: sliceIndex, sentence }));

  useEffect(() => {
    const [image, above, top] = [imageElement.current, sceneCanvas.current, sketchCanvas.current];
    if (image === null || above === null || top === null) return;
    drawing.current = { scene: sceneDrawer(above), sketch: sketchDrawer(top) };
    const abort = new AbortController();
    let opened: ImageStack | null = null;
    const events = { onDrawn: () => redraw(), onProblem: (sentence: string) => failed(sentence) };
    openStack(image, { source, events, signal: abort.signal }).then(
      (ready) => {
        opened = ready;
        if (abort.signal.aborted) {
          ready.close();
          return;
        }
        setStack(ready);
        announce(ready);
      },
      (error: unknown) => {
        if (!abort.signal.aborted) failed(error instanceof Error ? error.message : String(error));
      },
    );
    return () => {
      abort.abort();
      opened?.close();
      setStack(null);
      announce(null);
    };
  }, [source]);

  useEffect(() => {
    if (stack === null) return;
    let isLatest = true;
    stack.show(sliceIndex).then(
      () => {
        if (isLatest) setShown({ stack, index: sliceIndex });
      },
      () => {
        if (isLatest) failed("This slice's image could not be loaded or decoded.");
      },
    );
    return () => {
      isLatest = false;
    };
  }, [stack, sliceIndex]);

  useEffect(() => {
    if (shown !== null && voi !== null) shown.stack.setWindow(voi);
  }, [shown, voi]);

  useLayoutEffect(() => {
    redraw();
  }, [scene, isShown, tool, radius, color, mayEdit]);

  const onWheel = useEffectEvent((event: WheelEvent) => {
    event.preventDefault();
    const top = surface.current;
    if (event.ctrlKey && top !== null) stack?.zoomAt(screenPoint(event, top), Math.exp(-event.deltaY / 300));
    else props.onScroll(Math.sign(event.deltaY));
  });

  const onSpace = useEffectEvent((event: KeyboardEvent) => {
    if (event.code !== "Space" || isTyping(event.target)) return;
    isSpaceHeld.current = event.type === "keydown";
    event.preventDefault();
  });

  useEffect(() => {
    const top = surface.current;
    const wheel = (event: WheelEvent) => onWheel(event);
    const space = (event: KeyboardEvent) => onSpace(event);
    top?.addEventListener("wheel", wheel, { passive: false }); // React's own listener is passive
    window.addEventListener("keydown", space);
    window.addEventListener("keyup", space);
    return () => {
      top?.removeEventListener("wheel", wheel);
      window.removeEventListener("keydown", space);
      window.removeEventListener("keyup", space);
    };
  }, []);

  function sliceUnder(screen: ScreenPoint): SlicePoint | null {
    const transform = stack?.transform() ?? null;
    return transform === null ? null : toSlice(transform, screen);
  }

  function onPointerDown(event: PointerEvent<HTMLDivElement>): void {
    if (gesture.current !== null || stack === null) return;
    const screen = screenPoint(event.nativeEvent, event.currentTarget);
    const at = sliceUnder(screen);
    const pressed = press(
      {
        button: event.button,
        screen,
        slice: at !== null && isInside(at, size) ? at : null,
        isShifted: event.shiftKey,
        isPanning: isSpaceHeld.current,
      },
      { tool, mayEdit: mayEdit && isShown, window: voi },
    );
    if (pressed === null) return;
    if (pressed.kind === "point") {
      if (at !== null) props.onPoint(pointAt(at, { positive: pressed.positive }));
      return;
    }
    gesture.current = pressed;
    event.currentTarget.setPointerCapture(event.pointerId);
    event.preventDefault();
    sketchNow();
  }

  function onPointerMove(event: PointerEvent<HTMLDivElement>): void {
    const screen = screenPoint(event.nativeEvent, event.currentTarget);
    cursor.current = screen;
    readPixel(screen);
    const { current } = gesture;
    switch (current?.kind) {
      case "stroke": {
        const target = event.currentTarget;
        const passed = event.nativeEvent.getCoalescedEvents().map((each) => sliceUnder(screenPoint(each, target)));
        const at = passed.length > 0 ? passed : [sliceUnder(screen)];
        gesture.current = { ...current, path: [...current.path, ...at.filter((point) => point !== null)] };
        break;
      }
      case "box": {
        const to = sliceUnder(screen);
        if (to !== null) gesture.current = { ...current, to };
        break;
      }
      case "window":
        props.onWindow(windowAfter(current, screen));
        break;
      case "pan":
        stack?.pan({ left: screen.left - current.at.left, top: screen.top - current.at.top });
        gesture.current = { ...current, at: screen };
        break;
      case "zoom":
        stack?.zoomAt(current.anchor, zoomFactor(current.at, screen));
        gesture.current = { ...current, at: screen };
        break;
      case undefined:
    }
    sketchNow();
  }

  function onPointerUp(): void {
    const { current } = gesture;
    gesture.current = null;
    sketchNow();
    if (current?.kind === "stroke") {
      props.onStroke({ mask: sweepDisc(current.path, { ...size, radius }), erases: current.erases });
    }
    if (current?.kind === "box") finishBox(current);
  }

  function finishBox({ from, to }: Extract<Gesture, { kind: "box" }>): void {
    const transform = stack?.transform() ?? null;
    if (transform === null) return;
    const [across, down] = [Math.abs(to.x - from.x) * Math.abs(transform.a), Math.abs(to.y - from.y) * Math.abs(transform.d)];
    const box = boxBetween(from, to, size);
    if (box !== null && Math.max(across, down) >= LEAST_BOX_PX) props.onBox(box);
  }

  function onPointerCancel(): void {
    gesture.current = null;
    sketchNow();
  }

  function onPointerLeave(): void {
    cursor.current = null;
    if (pixelReadout.current) pixelReadout.current.textContent = "";
    sketchNow();
  }

  function readPixel(screen: ScreenPoint): void {
    const at = sliceUnder(screen);
    const values = at !== null && isShown ? shown.stack.valuesAt(at) : null;
    if (pixelReadout.current === null) return;
    pixelReadout.current.textContent =
      at === null || values === null
        ? ""
        : `x ${Math.floor(at.x)}  y ${Math.floor(at.y)}   ${values.map(roundedValue).join(" ")}${values.length === 1 && unit !== "" ? ` ${unit}` : ""}`;
  }

  const sentence = problem?.index === sliceIndex ? problem.sentence : null;
  return (
    <div className={classes.viewer} data-testid="viewer" data-shown={isShown ? sliceIndex : undefined}>
      <div ref={imageElement} className={classes.layer} />
      <canvas ref={sceneCanvas} className={classes.layer} />
      <canvas ref={sketchCanvas} className={classes.layer} />
      <div
        ref={surface}
        className={classes.layer}
        data-testid="viewer-overlay"
        data-tool={isShown ? tool : "none"}
        role="img"
        aria-label="Slice with its masks"
        onPointerDown={onPointerDown}
        onPointerMove={onPointerMove}
        onPointerUp={onPointerUp}
        onPointerCancel={onPointerCancel}
        onPointerLeave={onPointerLeave}
        onContextMenu={(event) => event.preventDefault()}
      />
      <div className={`${classes.readout ?? ""} ${classes.pixel ?? ""}`}>
        <span ref={pixelReadout} data-testid="pixel-readout" />
      </div>
      <div className={`${classes.readout ?? ""} ${classes.scale ?? ""}`}>
        <span ref={zoomReadout} data-testid="zoom-readout" />
      </div>
      {!isShown && sentence === null && <div className={classes.centre}>Loading…</div>}
      {sentence !== null && (
        <div className={classes.centre} role="alert" data-testid="viewer-problem">
          {sentence}
        </div>
      )}
    </div>
  );
}

/** Ends the measure that began when a mask was received, once the frame that shows it has been made. */
function measurePaint(): void {
  const [received] = performance.getEntriesByName("mask-received");
  if (received === undefined) return;
  performance.clearMarks("mask-received");
  requestAnimationFrame(() =>
    setTimeout(() => performance.measure("mask-received→drawn", { start: received.startTime, end: performance.now() })),
  );
}

interface Drawing {
  readonly scene: ReturnType<typeof sceneDrawer>;
  readonly sketch: ReturnType<typeof sketchDrawer>;
}

function screenPoint(event: MouseEvent, element: Element): ScreenPoint {
  const { left, top } = element.getBoundingClientRect();
  return { left: event.clientX - left, top: event.clientY - top };
}

function roundedValue(value: number): string {
  return Number.isInteger(value) ? String(value) : value.toFixed(2);
}

function isTyping(target: EventTarget | null): boolean {
  return target instanceof HTMLElement && (target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName));
}
