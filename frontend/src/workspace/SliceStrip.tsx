/** All slices at a glance: which are prepared, drafted and accepted, and which is on screen. */
import { memo, useRef, type PointerEvent } from "react";
import type { Session } from "../session/session";
import { markAt } from "./scene";
import type { Label } from "./task";
import classes from "./Workspace.module.css";

const ROW = 6; // height of a label's row; the first row is "prepared"
const PREPARED_ROW = 4;

interface SliceStripProps {
  readonly session: Session;
  readonly labels: readonly Label[];
  readonly onGo: (index: number) => void;
}

export function SliceStrip({ session, labels, onGo }: SliceStripProps) {
  const strip = useRef<SVGSVGElement>(null);
  const { sliceIds, sliceIndex, prepared } = session;
  const colors = labels.map(({ color }) => color).join();
  const height = PREPARED_ROW + ROW * Math.max(1, labels.length);

  function goTo(event: PointerEvent<SVGSVGElement>): void {
    const box = strip.current?.getBoundingClientRect();
    if (box === undefined || box.width === 0) return;
    onGo(Math.floor(((event.clientX - box.left) / box.width) * sliceIds.length));
  }

  return (
    <div className={classes.strip}>
      <span className={classes.indicator} data-testid="slice-indicator">
        {sliceIndex + 1} / {sliceIds.length}
      </span>
      <svg
        ref={strip}
        className={classes.slices}
        viewBox={`0 0 ${Math.max(1, sliceIds.length)} ${height}`}
        style={{ height: height * 1.6 }}
        preserveAspectRatio="none"
        role="slider"
        tabIndex={-1}
        aria-label="Slice"
        aria-valuemin={1}
        aria-valuemax={sliceIds.length}
        aria-valuenow={sliceIndex + 1}
        onPointerDown={(event) => {
          event.currentTarget.setPointerCapture(event.pointerId);
          goTo(event);
        }}
        onPointerMove={(event) => {
          if (event.buttons === 1) goTo(event);
        }}
        data-testid="slice-strip"
      >
        {sliceIds.map((slice_id, index) => (
          <SliceCell
            key={slice_id}
            index={index}
            isPrepared={prepared.has(slice_id)}
            marks={labels.map(({ id }) => markAt(session, { slice_id, label_id: id })).join()}
            colors={colors}
          />
        ))}
        <rect x={sliceIndex} y={0} width={1} height={height} className={classes.here} />
      </svg>
    </div>
  );
}

interface SliceCellProps {
  readonly index: number;
  readonly isPrepared: boolean;
  readonly marks: string; // one per label, joined: equal ones are the same value, and nothing is rendered again
  readonly colors: string;
}

const SliceCell = memo(function SliceCell({ index, isPrepared, marks, colors }: SliceCellProps) {
  const colorOf = colors.split(",");
  return (
    <g>
      <rect
        x={index + 0.08}
        y={0.5}
        width={0.84}
        height={PREPARED_ROW - 1.5}
        className={isPrepared ? classes.prepared : classes.unprepared}
      />
      {marks.split(",").map((mark, row) =>
        mark === "changed" || mark === "accepted" ? (
          <rect
            key={row}
            x={index + 0.08}
            y={PREPARED_ROW + row * ROW + (mark === "accepted" ? 0.5 : ROW / 2)}
            width={0.84}
            height={mark === "accepted" ? ROW - 1 : ROW / 2 - 0.5}
            fill={colorOf[row]}
            opacity={mark === "accepted" ? 0.95 : 0.6}
          />
        ) : null,
      )}
    </g>
  );
});
