/** Where a name stands in the pixels of a held series: boxes are drawn over it and blacked out for good. */
import { ActionIcon, Alert, Button, Group, Modal, SegmentedControl, Slider, Stack, Switch, Text } from "@mantine/core";
import { useDebouncedValue, useHotkeys } from "@mantine/hooks";
import { IconArrowBackUp, IconX } from "@tabler/icons-react";
import { useState, type PointerEvent } from "react";
import { client, dataOf, type Schemas } from "../api/client";
import { showDone } from "../app/refusals";
import { useAct } from "../app/useAct";
import {
  areaBetween, boxInWords, isOn, previewUrl, toSlicePoint, type Area, type BlackBox, type SlicePoint,
} from "./blackBoxes";
import { seriesInWords } from "./words";

type HeldSeries = Schemas["HeldSeriesOut"];

// Small letters must be legible here.
const SIDE = 1600;
const SLIDING_MS = 120;
// The server looks through no more for one picture.
const BRIGHTEST_OF_AT_MOST = 1000;

export function BlackOutDialog({ series, projectId, onClose }: { series: HeldSeries; projectId: string; onClose: () => void }) {
  const [boxes, setBoxes] = useState<readonly BlackBox[]>([]);
  const [index, setIndex] = useState(0);
  const [isBrightest, setBrightest] = useState(false);
  const [scope, setScope] = useState<"all" | "one">("all");
  const [shownIndex] = useDebouncedValue(index, SLIDING_MS);
  const last = series.slices - 1;
  const canBrightest = series.slices > 1 && series.slices <= BRIGHTEST_OF_AT_MOST;
  const undo = () => setBoxes((drawn) => drawn.slice(0, -1));
  useHotkeys([["mod+Z", undo]]);

  const act = useAct(
    async () =>
      dataOf(await client.POST("/api/series/{series_id}/black-out", {
        params: { path: { series_id: series.id } },
        body: { boxes: [...boxes], slices: series.slices },
      })),
    {
      stale: [["project", projectId]],
      onDone: () => {
        showDone("The boxes are being blacked out; the series is let go after that.");
        onClose();
      },
    },
  );
  const add = (area: Area) => {
    const onAll = scope === "all" || isBrightest;
    setBoxes((drawn) => [...drawn, { ...area, first: onAll ? 0 : index, last: onAll ? last : index }]);
  };
  return (
    <Modal
      opened onClose={onClose} size="min(1100px, 95vw)"
      title={`Black out: study ${series.study_number}, ${seriesInWords(series, [])}`}
    >
      <Stack gap="sm">
        <Text size="sm" c="dimmed">
          Draw a box over everything that tells who the patient is. Look through all slices: a name may stand on one of them only.
        </Text>
        <Drawing
          series={series} onDrawn={add}
          source={previewUrl(series.id, { side: SIDE, ...(isBrightest ? {} : { index: shownIndex }) })}
          boxes={isBrightest ? boxes : boxes.filter((box) => isOn(box, index))}
        />
        {series.slices > 1 && (
          <>
            <Group wrap="nowrap" gap="md">
              <Text size="sm" w={110} data-testid="slice-number">Slice {index + 1} of {series.slices}</Text>
              <Slider
                flex={1} min={0} max={last} value={index} onChange={setIndex} disabled={isBrightest}
                label={(value) => value + 1} thumbLabel="Slice" data-autofocus
              />
            </Group>
            <Group justify="space-between">
              <Group gap="xs">
                <Text size="sm">A new box lies on</Text>
                <SegmentedControl
                  size="xs" value={isBrightest ? "all" : scope} disabled={isBrightest}
                  onChange={(value) => setScope(value)}
                  data={[{ value: "all", label: "all slices" }, { value: "one", label: "this slice" }]}
                />
              </Group>
              {canBrightest && (
                <Switch
                  label="Brightest of all slices" checked={isBrightest}
                  onChange={(event) => setBrightest(event.currentTarget.checked)}
                />
              )}
            </Group>
          </>
        )}
        <Group gap="xs" mih={30}>
          {boxes.length === 0 && <Text size="sm" c="dimmed">No boxes yet.</Text>}
          {boxes.map((box, position) => (
            <Group key={`${position} ${boxInWords(box, series.slices)}`} gap={2} data-testid="black-box">
              <Text size="xs">{boxInWords(box, series.slices)}</Text>
              <ActionIcon
                size="xs" variant="subtle" color="gray" aria-label={`Remove box ${position + 1}`}
                onClick={() => setBoxes(boxes.filter((_, each) => each !== position))}
              >
                <IconX size={12} />
              </ActionIcon>
            </Group>
          ))}
        </Group>
        <Alert color="yellow" p="xs">The pixels below the boxes are gone for good; then everybody in the project can open the series.</Alert>
        <Group justify="flex-end">
          <Button variant="default" leftSection={<IconArrowBackUp size={16} />} disabled={boxes.length === 0} onClick={undo}>
            Undo last
          </Button>
          <Button variant="default" onClick={onClose}>Cancel</Button>
          <Button color="red" disabled={boxes.length === 0} loading={act.isPending} onClick={() => act.mutate(undefined)}>
            Black out {boxes.length === 1 ? "1 box" : `${boxes.length} boxes`} and release
          </Button>
        </Group>
      </Stack>
    </Modal>
  );
}

interface DrawingProps {
  readonly series: HeldSeries;
  readonly source: string;
  readonly boxes: readonly BlackBox[];
  readonly onDrawn: (area: Area) => void;
}

/** The slice, and above it the boxes; a drag draws another. */
function Drawing({ series, source, boxes, onDrawn }: DrawingProps) {
  const [drag, setDrag] = useState<{ from: SlicePoint; to: SlicePoint }>();
  const { columns, rows } = series;
  const at = (event: PointerEvent<SVGSVGElement>) =>
    toSlicePoint(event, event.currentTarget.getBoundingClientRect(), { columns, rows });
  const begun = drag && areaBetween(drag.from, drag.to, { columns, rows });
  const finish = () => {
    setDrag(undefined);
    if (begun) onDrawn(begun);
  };
  return (
    // As large as fits, in the slice's own proportions: a box then is where it is drawn.
    <div style={{ position: "relative", margin: "0 auto", width: `min(100%, ${(46 * columns) / rows}vh)`, aspectRatio: `${columns} / ${rows}`, background: "black" }}>
      <img src={source} alt="" draggable={false} style={{ width: "100%", height: "100%", display: "block" }} data-testid="black-out-image" />
      <svg
        viewBox={`0 0 ${columns} ${rows}`} preserveAspectRatio="none" data-testid="black-out-canvas"
        style={{ position: "absolute", inset: 0, width: "100%", height: "100%", cursor: "crosshair", touchAction: "none" }}
        onPointerDown={(event) => {
          if (event.button !== 0) return;
          event.currentTarget.setPointerCapture(event.pointerId);
          setDrag({ from: at(event), to: at(event) });
        }}
        onPointerMove={(event) => {
          const to = at(event);
          setDrag((current) => current && { ...current, to });
        }}
        onPointerUp={finish}
        onPointerCancel={() => setDrag(undefined)}
      >
        {boxes.map((box, position) => <Rectangle key={position} area={box} />)}
        {begun && <Rectangle area={begun} />}
      </svg>
    </div>
  );
}

function Rectangle({ area }: { area: Area }) {
  return (
    <rect
      x={area.x0} y={area.y0} width={area.x1 - area.x0} height={area.y1 - area.y0}
      fill="black" fillOpacity={0.75} stroke="var(--mantine-color-red-5)" strokeWidth={2} vectorEffect="non-scaling-stroke"
    />
  );
}
