import { fileURLToPath } from "node:url";
import react from "@vitejs/plugin-react";
import { defineConfig } from "vitest/config";

const BACKEND = process.env.DELINEATE_URL ?? "http://127.0.0.1:8700";
const codec = (name: string, entry = "decodewasmjs") =>
  `@cornerstonejs/dicom-image-loader > @cornerstonejs/codec-${name}/${entry}`;

export default defineConfig({
  plugins: [react()],
  resolve: {
    alias: {
      // vtk.js' XML readers pull xmlbuilder2, which dies at load in a production build; nothing here
      // reads XML.
      xmlbuilder2: fileURLToPath(new URL("./src/stubs/xmlbuilder2.ts", import.meta.url)),
    },
    dedupe: [
      "@cornerstonejs/core",
      "@cornerstonejs/metadata",
      "@cornerstonejs/utils",
      "dicom-parser",
      "gl-matrix",
    ],
  },
  worker: { format: "es" },
  optimizeDeps: {
    exclude: ["@cornerstonejs/dicom-image-loader"],
    include: [
      "dicom-parser",
      "@cornerstonejs/dicom-image-loader > pako",
      "@cornerstonejs/dicom-image-loader > comlink",
      "@cornerstonejs/dicom-image-loader > uuid",
      codec("charls"),
      codec("libjpeg-turbo-8bit"),
      codec("openjpeg"),
      codec("openjph", "wasmjs"),
      "@cornerstonejs/dicom-image-loader > @cornerstonejs/jpeg-lossless-decoder-js",
    ],
  },
  server: {
    proxy: {
      "/api": BACKEND,
      "/dicomweb": BACKEND,
      "/ws": { target: BACKEND, ws: true },
    },
  },
  build: { target: "es2022", chunkSizeWarningLimit: 6000 },
  test: { include: ["src/**/*.test.ts", "src/**/*.test.tsx"] },
});
