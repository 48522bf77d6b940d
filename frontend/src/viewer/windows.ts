/** Windows on intensities: linear VOI windows in modality units (for CT: Hounsfield units). */

export interface Window {
  readonly centre: number;
  readonly width: number;
}

export interface Preset {
  readonly name: string;
  readonly window: Window;
}

const CT_PRESETS: readonly Preset[] = [
  { name: "Soft tissue", window: { centre: 40, width: 400 } },
  { name: "Lung", window: { centre: -600, width: 1500 } },
  { name: "Bone", window: { centre: 480, width: 2500 } },
  { name: "Brain", window: { centre: 40, width: 80 } },
];

export function presetsFor(modality: string, seriesWindow: Window | null): readonly Preset[] {
  const own = seriesWindow === null ? [] : [{ name: "Default", window: seriesWindow }];
  return modality === "CT" ? [...own, ...CT_PRESETS] : own;
}

/** The window that shows everything from the lowest to the highest value. */
export function fullRange(lowest: number, highest: number): Window {
  return { centre: (lowest + highest + 1) / 2, width: Math.max(1, highest - lowest + 1) };
}

/**
 * The window after a drag: right widens, down darkens. A pixel of the drag is worth more in a wide
 * window than in a narrow one, so that both can be set finely.
 */
export function dragged({ centre, width }: Window, moved: { right: number; down: number }): Window {
  const perPixel = Math.max(width, 16) / 256;
  return {
    centre: Math.round(centre + moved.down * perPixel),
    width: Math.max(1, Math.round(width + moved.right * perPixel)),
  };
}

/** The lowest and highest value of the window's ramp (DICOM PS3.3 C.11.2.1.2.1). */
export function bounds({ centre, width }: Window): { lower: number; upper: number } {
  return { lower: centre - 0.5 - (width - 1) / 2, upper: centre - 0.5 + (width - 1) / 2 };
}
