// BERT's tokenizer: lower case, no accents, punctuation by itself, then the longest pieces of the vocabulary.

export class WordPiece {
  #vocabulary;

  constructor({ model }) {
    this.#vocabulary = model.vocab;
  }

  static async load(url) {
    const response = await fetch(url);
    if (!response.ok) throw new Error(`${url}: ${response.status} ${response.statusText}`);
    return new WordPiece(await response.json());
  }

  /** The ids of a text, with the marks of its beginning and end. */
  encode(text, most = 128) {
    const plain = text.toLowerCase().normalize('NFD').replace(/\p{Mn}/gu, '');
    const words = plain.match(/[\p{P}\p{S}]|[\p{Script=Han}]|[^\s\p{P}\p{S}\p{Script=Han}]+/gu) ?? [];
    const { '[CLS]': start, '[SEP]': end } = this.#vocabulary;
    return [start, ...words.flatMap((word) => this.#pieces(word)).slice(0, most - 2), end];
  }

  #pieces(word) {
    const pieces = [];
    for (let from = 0; from < word.length; ) {
      const prefix = from === 0 ? '' : '##';
      let to = word.length;
      while (to > from && this.#vocabulary[prefix + word.slice(from, to)] === undefined) to -= 1;
      if (to === from) return [this.#vocabulary['[UNK]']];
      pieces.push(this.#vocabulary[prefix + word.slice(from, to)]);
      from = to;
    }
    return pieces;
  }
}
