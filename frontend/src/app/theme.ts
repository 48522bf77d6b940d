/** Dark and calm: the images are the brightest thing on the screen. */
import { createTheme, type MantineColorsTuple } from "@mantine/core";

const teal: MantineColorsTuple = [
  "#e3faf6", "#cdf0ea", "#9fe0d5", "#6dcfc0", "#45c1ae", "#2bb8a3", "#1ab49d", "#079e89", "#008d79", "#007a68",
];
const dark: MantineColorsTuple = [
  "#d5dbe3", "#aab4c0", "#8693a3", "#5f6c7c", "#3d4855", "#2b343f", "#1d242d", "#151b22", "#10151b", "#0a0e13",
];

export const theme = createTheme({
  primaryColor: "teal",
  primaryShade: 7,
  colors: { teal, dark },
  defaultRadius: "sm",
  fontFamily: "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'DejaVu Sans', sans-serif",
  cursorType: "pointer",
});
