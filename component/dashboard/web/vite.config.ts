import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vite";

// The page is served from the root of the API's own address: `npm run dev` therefore forwards the API to a running
// `bramble up` on its usual port.
export default defineConfig({
  plugins: [svelte()],
  build: {
    target: "es2022",
    // The first versions that know light-dark(), which the two themes are written with.
    cssTarget: ["chrome123", "firefox121", "safari17.5"],
    // Inlined data: URLs would need holes in the content security policy.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    // The terminal, loaded by the one view that shows it, is the largest.
    chunkSizeWarningLimit: 350,
  },
  server: { proxy: { "/v1": { target: "http://127.0.0.1:7700", ws: true } } },
});
