// Tuning records, one line of JSON each, in IndexedDB: the format of the command line's file.
import { messageOf, TilewrightError } from './error.js';

const DATABASE = 'tilewright';
const STORE = 'records';

/** Where there is no IndexedDB, as under Node, records last as long as the program. */
const inMemory = new Map<string, string>();

let opening: Promise<IDBDatabase> | undefined;

function database(): Promise<IDBDatabase> {
  opening ??= new Promise<IDBDatabase>((resolve, reject) => {
    const request = indexedDB.open(DATABASE, 1);
    request.onupgradeneeded = () => request.result.createObjectStore(STORE);
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  }).catch((error: unknown) => {
    opening = undefined;
    throw new TilewrightError('io', `tuning records: ${messageOf(error)}`, { cause: error });
  });
  return opening;
}

async function transact<T>(mode: IDBTransactionMode, work: (store: IDBObjectStore) => IDBRequest<T> | undefined): Promise<T | undefined> {
  const transaction = (await database()).transaction(STORE, mode);
  const request = work(transaction.objectStore(STORE));
  await new Promise<void>((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onerror = transaction.onabort = () =>
      reject(new TilewrightError('io', `tuning records: ${messageOf(transaction.error)}`, { cause: transaction.error }));
  });
  return request?.result;
}

/** What a line holds for; a later line of the same replaces it. */
function keyOf(line: string): string {
  const record = JSON.parse(line) as { format?: unknown; key?: unknown; platform?: unknown };
  if (typeof record !== 'object' || record === null || record.format === undefined) throw new Error('it has no format');
  const key = record.key ?? record.platform;
  if (key === undefined) throw new Error('it has neither key nor platform');
  return JSON.stringify(key);
}

/** All tuning records of this origin: one a line, as the command line keeps them. */
export async function exportRecords(): Promise<string> {
  const lines =
    typeof indexedDB === 'undefined' ? [...inMemory.values()] : await transact<string[]>('readonly', (store) => store.getAll());
  return (lines ?? []).map((line) => `${line}\n`).join('');
}

/** Takes in records, of here or of the command line; sessions made later use them. Says how many lines there were. */
export async function importRecords(lines: string): Promise<number> {
  const found = new Map<string, string>();
  for (const [number, line] of lines.split('\n').entries()) {
    if (line.trim() === '') continue;
    try {
      found.set(keyOf(line), line);
    } catch (error) {
      throw new TilewrightError('parse', `tuning records, line ${number + 1}: ${messageOf(error)}`, { cause: error });
    }
  }
  if (typeof indexedDB === 'undefined') for (const [key, line] of found) inMemory.set(key, line);
  else {
    await transact('readwrite', (store) => {
      for (const [key, line] of found) store.put(line, key);
      return undefined;
    });
  }
  return found.size;
}
