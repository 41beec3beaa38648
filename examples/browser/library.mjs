// Where transformers.js comes from. For a page that asks nothing of the network, copy
// `node_modules/@huggingface/transformers/dist` and `node_modules/onnxruntime-web/dist` beside it,
// and name their places here.
export const TRANSFORMERS =
  'https://cdn.jsdelivr.net/npm/@huggingface/transformers@4.3.1/dist/transformers.min.js';
// Of onnxruntime's WebAssembly; null: transformers.js fetches its own from the same network.
export const WEB_ASSEMBLY = null;
