/** Colours that stay apart on grey images and for colour-blind eyes (after Okabe and Ito). */
export const LABEL_COLORS: readonly string[] = [
  "#e69f00", "#56b4e9", "#2bb8a3", "#f0e442", "#d55e00", "#cc79a7", "#8a9bff", "#a3d977",
];
