// Changes what a client of the example has kept, while it does not run.
// usage: node tamper.mjs STORE-MODULE STORE 'reinstall' | 'lose-sessions'
import { pathToFileURL } from 'node:url';

const [module, path, how] = process.argv.slice(2);
const { Store } = await import(pathToFileURL(module));
const keep = {
  reinstall: (key) => key === 'device key',
  'lose-sessions': (key) => !key.startsWith('session '),
}[how];

const store = new Store(path);
store.apply(new Map(store.keys('').filter((key) => !keep(key)).map((key) => [key, undefined])));
store.close();
