// The panels over the page: settings, help, the key. It knows forms; it asks no server.

import { faultOfField, FIELDS, ownValue } from './settings.mjs';
import { make } from './markdown.mjs';
import { settingsStore } from './stores.mjs';

// Opens a dialog by a button, and closes it by its own button, Esc, or a click beside it.
export function panel(dialog, opener) {
  opener?.addEventListener('click', () => dialog.showModal());
  dialog.querySelector('.close')?.addEventListener('click', () => dialog.close());
  dialog.addEventListener('click', (event) => {
    if (event.target === dialog) dialog.close();
  });
}

export class SettingsForm {
  #inputs = new Map();

  // `values` are kept as they are typed. `onChange` is called after each change.
  constructor(form, values, onChange) {
    this.form = form;
    this.values = values;
    this.onChange = onChange;
    this.system = form.querySelector('#system');
    this.system.value = values.system ?? '';
    this.system.addEventListener('input', () => this.#keep('system', this.system.value));
    form.querySelector('#numbers').append(...FIELDS.map((field) => this.#row(field)));
    form.querySelector('#reset').addEventListener('click', () => this.reset());
    form.addEventListener('submit', (event) => event.preventDefault());
  }

  // Show what is typed, and in empty fields what the model has of its own.
  fit(model) {
    this.model = model;
    const note = this.form.querySelector('#no-system');
    note.hidden = model.meta.for_chat;
    this.system.disabled = !model.meta.for_chat;
    for (const field of FIELDS) {
      const { input } = this.#inputs.get(field.name);
      input.placeholder = String(ownValue(field.name, model) ?? 'fresh');
      this.#check(field);
    }
  }

  reset() {
    this.values.system = '';
    this.system.value = '';
    for (const { name } of FIELDS) {
      delete this.values[name];
      this.#inputs.get(name).input.value = '';
    }
    this.fit(this.model);
    this.onChange();
  }

  #row(field) {
    const id = `setting-${field.name}`;
    const input = make('input', { id, autocomplete: 'off', value: this.values[field.name] ?? '' });
    input.inputMode = field.step === 1 ? 'numeric' : 'decimal';
    const hint = make('small', { id: `${id}-hint` }, field.hint);
    const fault = make('small', { id: `${id}-fault`, className: 'wrong', role: 'alert' });
    input.setAttribute('aria-describedby', `${hint.id} ${fault.id}`);
    input.addEventListener('input', () => {
      this.#check(field);
      this.#keep(field.name, input.value);
    });
    this.#inputs.set(field.name, { input, fault });
    const label = make('label', { htmlFor: id }, field.label);
    return make('div', { className: 'row' }, label, input, hint, fault);
  }

  #check(field) {
    const { input, fault } = this.#inputs.get(field.name);
    const wrong = this.model ? faultOfField(field, input.value, this.model) : '';
    input.setAttribute('aria-invalid', String(wrong !== ''));
    fault.textContent = wrong && `Not used: ${wrong}.`;
  }

  #keep(name, value) {
    this.values[name] = value;
    this.onChange();
  }
}

// Lets the reader choose light or dark, or leave it to the system.
export function chooseTheme(select) {
  select.value = document.documentElement.dataset.theme ?? 'system';
  select.addEventListener('change', () => {
    if (select.value === 'system') {
      delete document.documentElement.dataset.theme;
      settingsStore.forget('theme');
    } else {
      document.documentElement.dataset.theme = select.value;
      settingsStore.keep('theme', select.value);
    }
  });
}

// Asks for the key; resolves to what was typed, or null where the reader went away.
export function askForKey(dialog) {
  const input = dialog.querySelector('input');
  input.value = '';
  dialog.returnValue = '';
  dialog.showModal();
  return new Promise((resolve) => {
    const close = () => resolve(dialog.returnValue === 'given' ? input.value.trim() : null);
    dialog.addEventListener('close', close, { once: true });
  });
}

// Puts a text on the clipboard; returns whether that was allowed. Pages that did not come from this
// machine or by https have no `navigator.clipboard`.
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = make('textarea', { value: text, className: 'unseen' });
    const focused = document.activeElement;
    document.body.append(area);
    area.select();
    const isCopied = document.execCommand('copy');
    area.remove();
    focused?.focus();
    return isCopied;
  }
}
