/** Numbers of things, in words. */
export function counted(n: number, thing: string): string {
  return `${n} ${thing}${n === 1 ? "" : "s"}`;
}

export const slicesInWords = (slices: number): string => counted(slices, "slice");

export function sizeInWords(bytes: number): string {
  if (bytes < 1024 ** 2) return `${Math.ceil(bytes / 1024)} KB`;
  return bytes < 1024 ** 3 ? `${(bytes / 1024 ** 2).toFixed(1)} MB` : `${(bytes / 1024 ** 3).toFixed(2)} GB`;
}

interface Numbered {
  readonly modality: string;
  readonly number: number;
  readonly volume: number;
  readonly series_uid: string;
}

/** Images that say nothing of it are OT, "other", as DICOM calls it. */
export const modalityInWords = (modality: string): string => modality || "OT";

/** A series by its modality and number, and which of its volumes it is where there are several. */
export function seriesInWords(series: Numbered, ofStudy: readonly Numbered[]): string {
  const volumes = ofStudy.filter(({ series_uid }) => series_uid === series.series_uid).length;
  return [
    modalityInWords(series.modality),
    ...(series.number > 0 ? [`series ${series.number}`] : []),
    ...(volumes > 1 ? [`volume ${series.volume} of ${volumes}`] : []),
  ].join(" · ");
}

/** What is kept beside a study's images: how many, and of which modalities. */
export function referencesInWords(references: readonly { readonly modality: string; readonly count: number }[]): string {
  const total = references.reduce((sum, { count }) => sum + count, 0);
  return `${counted(total, "reference")}: ${references.map(({ modality }) => modality).join(", ")}`;
}
