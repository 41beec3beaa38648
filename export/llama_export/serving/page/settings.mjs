// How the reader wants answers: names, ranges and words, and the parameters that come of them.
//
// A value is the text of its field; an empty one leaves the choice to the model.

const MOST_SEED = Number.MAX_SAFE_INTEGER;

export const FIELDS = [
  {
    name: 'temperature', label: 'Temperature', least: 0, most: 100, step: 'any',
    hint: '0 always takes the likeliest token.',
  },
  {
    name: 'top_p', label: 'Top p', least: 1e-9, most: 1, step: 'any',
    hint: 'Draws from the likeliest tokens that have this probability together.',
  },
  {
    name: 'top_k', label: 'Top k', least: 0, most: 2 ** 24, step: 1,
    hint: 'Draws from so many of the likeliest tokens; 0: all.',
  },
  {
    name: 'min_p', label: 'Min p', least: 0, most: 1, step: 'any',
    hint: 'The smallest probability, as a share of the likeliest token’s.',
  },
  {
    name: 'repetition_penalty', label: 'Repetition penalty', least: 1e-3, most: 1e3, step: 'any',
    hint: 'Above 1 it makes tokens less likely that the text holds already.',
  },
  {
    name: 'max_tokens', label: 'Max tokens', least: 1, most: 2 ** 24, step: 1,
    hint: 'The longest answer.',
  },
  {
    name: 'seed', label: 'Seed', least: 0, most: MOST_SEED, step: 1,
    hint: 'The same seed gives the same answer again. Empty: a fresh one each time.',
  },
];

// What a field is where nothing is typed, as the model has it.
export function ownValue(name, model) {
  const { drawing, max_tokens } = model.meta;
  return name === 'max_tokens' ? max_tokens.usual : (drawing[name] ?? null);
}

// What is wrong with the text of a field; '': nothing.
export function faultOfField(field, text, model) {
  if (text.trim() === '') return '';
  const value = Number(text);
  const most = field.name === 'max_tokens' ? model.meta.max_tokens.most : field.most;
  const isWrong = !Number.isFinite(value) || (field.step === 1 && !Number.isInteger(value));
  if (!isWrong && value >= field.least && value <= most) return '';
  return `expected a ${field.step === 1 ? 'whole ' : ''}number from ${field.least} to ${most}`;
}

// The parameters of a request. What another model's limit has made wrong is left out.
export function parametersOf(settings, model) {
  const given = FIELDS.filter(({ name }) => (settings[name] ?? '').trim() !== '')
    .filter((field) => faultOfField(field, settings[field.name], model) === '')
    .map(({ name }) => [name, Number(settings[name])]);
  return { max_tokens: ownValue('max_tokens', model), ...Object.fromEntries(given) };
}
