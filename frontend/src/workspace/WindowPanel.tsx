/** The window on intensities: its values and presets. */
import { Button } from "@mantine/core";
import { memo } from "react";
import { presetsFor, type Window } from "../viewer/windows";
import classes from "./Workspace.module.css";

interface WindowPanelProps {
  readonly window: Window | null;
  readonly modality: string;
  readonly seriesWindow: Window | null;
  readonly onChoose: (window: Window) => void;
  readonly onFull: () => void;
}

export const WindowPanel = memo(function WindowPanel({ window, modality, seriesWindow, onChoose, onFull }: WindowPanelProps) {
  if (window === null) return null; // colour
  return (
    <section className={classes.section}>
      <h2>Window</h2>
      <div className={classes.windowValues} data-testid="window-values">
        <span>W {Math.round(window.width)}</span>
        <span>L {Math.round(window.centre)}</span>
      </div>
      <div className={classes.presets}>
        {presetsFor(modality, seriesWindow).map(({ name, window: preset }) => (
          <Button
            key={name}
            size="compact-xs"
            variant={isSame(preset, window) ? "light" : "default"}
            onClick={() => onChoose(preset)}
          >
            {name}
          </Button>
        ))}
        <Button size="compact-xs" variant="default" onClick={onFull}>
          Full range
        </Button>
      </div>
    </section>
  );
});

function isSame(a: Window, b: Window): boolean {
  return a.centre === b.centre && a.width === b.width;
}
