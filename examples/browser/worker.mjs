// The model, on a thread of its own: the page stays alive while it computes.
//
// It is told {load: path}, {messages}, {stop: true}; it tells {progress}, {ready}, {text},
// {done: {tokens, seconds}}, {error}.

import { TRANSFORMERS, WEB_ASSEMBLY } from './library.mjs';

const MAX_NEW_TOKENS = 256;
let generator;
let stopping;
let streamerOf;

async function load({ folder, name }) {
  const library = await import(TRANSFORMERS);
  const { env, pipeline, InterruptableStoppingCriteria, TextStreamer } = library;
  env.allowRemoteModels = false;
  env.allowLocalModels = true;
  env.localModelPath = folder;
  // A model that is exported anew has the same address.
  env.useBrowserCache = false;
  if (WEB_ASSEMBLY) env.backends.onnx.wasm.wasmPaths = WEB_ASSEMBLY;
  generator = await pipeline('text-generation', name, {
    subfolder: '',
    device: 'wasm',
    progress_callback: (told) => told.status === 'progress_total' && postMessage({ progress: told.progress }),
  });
  stopping = new InterruptableStoppingCriteria();
  streamerOf = (callbacks) =>
    new TextStreamer(generator.tokenizer, { skip_prompt: true, skip_special_tokens: true, ...callbacks });
  letMessagesIn(generator.model);
  postMessage({ ready: true });
}

// WebAssembly computes without a pause, so that "stop" would be heard at the end.
function letMessagesIn(model) {
  const forward = model.forward.bind(model);
  model.forward = async (inputs) => {
    await new Promise((resume) => {
      const { port1, port2 } = new MessageChannel();
      port1.onmessage = () => {
        port1.close();
        resume();
      };
      port2.postMessage(null);
    });
    return forward(inputs);
  };
}

async function answer(messages) {
  stopping.reset();
  let tokens = 0;
  let begun;
  const streamer = streamerOf({
    callback_function: (text) => postMessage({ text }),
    token_callback_function: () => {
      begun ??= performance.now(); // of the first token: the speed is that of the others
      tokens += 1;
    },
  });
  const prompt = generator.tokenizer.chat_template ? messages : messages.at(-1).content;
  await generator(prompt, {
    max_new_tokens: MAX_NEW_TOKENS,
    do_sample: false,
    streamer,
    stopping_criteria: stopping,
  });
  postMessage({ done: { tokens, seconds: (performance.now() - begun) / 1000 } });
}

onmessage = async ({ data }) => {
  try {
    if (data.load) await load(data.load);
    if (data.messages) await answer(data.messages);
    if (data.stop) stopping.interrupt();
  } catch (error) {
    postMessage({ error: String(error?.message ?? error) });
  }
};
