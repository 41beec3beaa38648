// transformers.js in node, with a whole output: node node_repository.mjs FOLDER < request.json

import { readFileSync } from 'node:fs';
import { basename, dirname } from 'node:path';
import { env, pipeline } from '@huggingface/transformers';
import { answers } from './answers.mjs';

const folder = process.argv[2];
const request = JSON.parse(readFileSync(0, 'utf8'));

env.localModelPath = dirname(folder);
env.allowRemoteModels = false;
const model = basename(folder);
const generator = await pipeline('text-generation', model);

console.log(JSON.stringify(await answers(generator, request)));
