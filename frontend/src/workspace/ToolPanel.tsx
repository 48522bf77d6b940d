/** The tools, with their keys. */
import { Slider, UnstyledButton } from "@mantine/core";
import {
  IconBrush,
  IconContrast,
  IconEraser,
  IconHandMove,
  IconMinus,
  IconPlus,
  IconSquareDashed,
  type Icon,
} from "@tabler/icons-react";
import { memo } from "react";
import { MAX_RADIUS, type Tool } from "../session/session";
import type { Command } from "./shortcuts";
import classes from "./Workspace.module.css";

interface ToolButton {
  readonly tool: Tool;
  readonly name: string;
  readonly key: string;
  readonly icon: Icon;
  readonly changesMask: boolean;
}

const TOOLS: readonly ToolButton[] = [
  { tool: "positive", name: "Point on it", key: "P", icon: IconPlus, changesMask: true },
  { tool: "negative", name: "Point beside it", key: "N", icon: IconMinus, changesMask: true },
  { tool: "box", name: "Box", key: "B", icon: IconSquareDashed, changesMask: true },
  { tool: "brush", name: "Brush", key: "D", icon: IconBrush, changesMask: true },
  { tool: "eraser", name: "Eraser", key: "E", icon: IconEraser, changesMask: true },
  { tool: "window", name: "Window / level", key: "W", icon: IconContrast, changesMask: false },
  { tool: "pan", name: "Move", key: "M", icon: IconHandMove, changesMask: false },
];

interface ToolPanelProps {
  readonly tool: Tool;
  readonly radius: number;
  readonly mayEdit: boolean;
  readonly areMasksShown: boolean;
  readonly onCommand: (command: Command) => void;
  readonly onRadius: (radius: number) => void;
}

export const ToolPanel = memo(function ToolPanel({ tool, radius, mayEdit, areMasksShown, onCommand, onRadius }: ToolPanelProps) {
  return (
    <section className={classes.section}>
      <h2>Tools</h2>
      <div role="radiogroup" aria-label="Tool">
        {TOOLS.map(({ tool: each, name, key, icon: ToolIcon, changesMask }) => (
          <UnstyledButton
            key={each}
            role="radio"
            aria-checked={each === tool}
            className={classes.tool ?? ""}
            disabled={changesMask && !mayEdit}
            onClick={() => onCommand({ kind: "tool", tool: each })}
            data-testid={`tool-${each}`}
          >
            <ToolIcon size={16} stroke={1.6} />
            <span className={classes.labelName}>{name}</span>
            <kbd className={classes.key}>{key}</kbd>
          </UnstyledButton>
        ))}
      </div>
      <div className={classes.radius}>
        <span>Brush radius</span>
        <output>{radius} px</output>
      </div>
      <Slider
        size="xs"
        min={1}
        max={MAX_RADIUS}
        value={radius}
        onChange={onRadius}
        label={null}
        thumbLabel="Brush radius in pixels"
        disabled={!mayEdit}
      />
      <UnstyledButton
        className={classes.tool ?? ""}
        aria-pressed={!areMasksShown}
        onClick={() => onCommand({ kind: "masks" })}
        data-testid="toggle-masks"
      >
        <span className={classes.labelName}>{areMasksShown ? "Hide masks" : "Show masks"}</span>
        <kbd className={classes.key}>H</kbd>
      </UnstyledButton>
    </section>
  );
});
