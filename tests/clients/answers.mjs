// What both homes of transformers.js do with a request: text from its pipeline, ids as they come.

export async function answers(generator, { prompts, max_new_tokens }) {
  const stops = [generator.model.config.eos_token_id].flat();
  const found = [];
  for (const { text, messages, date } of prompts) {
    const seen = [];
    const streamer = { put: ([ids]) => seen.push(ids.map(Number)), end: () => {} };
    const options = { max_new_tokens, do_sample: false, streamer, return_full_text: false };
    if (messages) options.tokenizer_encode_kwargs = { date_string: date };
    const [{ generated_text }] = await generator(messages ?? text, options);
    const [prompt, ...steps] = seen;
    const ids = steps.flat();
    if (stops.includes(ids.at(-1))) ids.pop();
    found.push({ prompt, ids, text: messages ? generated_text.at(-1).content : generated_text });
  }
  return found;
}
