'use strict';
// The cases of the suite, driven through node-zookeeper-client. Called by run:
//
//   tests.js ADDRESS RESULTS [--quick] [case...]
//
// RESULTS gets one JSON object a line. To have the server stopped or started this writes `stop`, `kill` or `start` to
// standard output and reads a line once it is done. Every case has a client, and a node of its own to work under.

const assert = require('assert');
const crypto = require('crypto');
const fs = require('fs');
const readline = require('readline');
const zookeeper = require('node-zookeeper-client');

const { ACL, CreateMode, Event, Exception, Id, Permission } = zookeeper;
const [address, resultsFile, ...rest] = process.argv.slice(2);
const quick = rest.includes('--quick');
const wanted = rest.filter((word) => word !== '--quick');

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const bytes = (text) => Buffer.from(text, 'utf8');
const number = (long) => long.readBigInt64BE(0);
const digest = (user, password) =>
  user + ':' + crypto.createHash('sha1').update(user + ':' + password).digest('base64');

async function within(ms, what, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(what + ' took longer than ' + ms + ' ms')), ms);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

// --- The server.

const answers = [];
readline.createInterface({ input: process.stdin }).on('line', () => answers.shift()());
async function server(word) {
  const answered = new Promise((resolve) => answers.push(resolve));
  process.stdout.write(word + '\n');
  await within(60000, word + ' of the server', answered);
}

// --- A client whose calls return promises.

const open = new Set();

class Client {
  constructor(options = {}, chroot = '') {
    this.raw = zookeeper.createClient(address + chroot, { sessionTimeout: 10000, spinDelay: 100, ...options });
    this.states = [];
    this.raw.on('state', (state) => this.states.push(state.name));
    open.add(this);
  }

  call(name, ...args) {
    return new Promise((resolve, reject) => {
      this.raw[name](...args, (error, ...values) => (error ? reject(error) : resolve(values)));
    });
  }

  async connect() {
    const connected = this.next('connected');
    this.raw.connect();
    await connected;
    return this;
  }

  next(state, ms = 20000) {
    return within(ms, 'to be ' + state, new Promise((resolve) => this.raw.once(state, resolve)));
  }

  // Every call but these waits for its answer.
  close() {
    if (open.delete(this)) {
      this.raw.close();
    }
  }

  async closed() {
    const gone = this.next('disconnected');
    this.close();
    await gone;
  }

  // Keeps the client from opening another connection until the function that this returns is called.
  hold() {
    const manager = this.raw.connectionManager;
    const { connect } = manager;
    manager.connect = () => {};
    return async () => {
      manager.connect = connect;
      const connected = this.next('connected', 30000);
      manager.connect();
      await connected;
    };
  }

  // Drops the connection; the client opens another at once unless held.
  drop() {
    this.raw.connectionManager.socket.destroy();
  }

  get id() {
    return this.raw.getSessionId();
  }

  async create(path, data, ...more) {
    return (await this.call('create', path, data === undefined ? undefined : bytes(data), ...more))[0];
  }

  async get(path, watcher) {
    const [data, stat] = await (watcher ? this.call('getData', path, watcher) : this.call('getData', path));
    return { data, stat, text: data ? data.toString('utf8') : data };
  }

  async set(path, data, version = -1) {
    return (await this.call('setData', path, bytes(data), version))[0];
  }

  async exists(path, watcher) {
    return (await (watcher ? this.call('exists', path, watcher) : this.call('exists', path)))[0];
  }

  async children(path, watcher) {
    const [names, stat] = await (watcher ? this.call('getChildren', path, watcher) : this.call('getChildren', path));
    return { names: [...names].sort(), stat };
  }

  remove(path, version = -1) {
    return this.call('remove', path, version);
  }

  commit(transaction) {
    return new Promise((resolve) => transaction.commit((error, results) => resolve({ error, results })));
  }

  auth(scheme, credentials) {
    this.raw.addAuthInfo(scheme, bytes(credentials));
  }
}

// Stops or kills the server and starts it again. The client connects once it is up: Apache at times leaves a connection that
// comes in while it starts without an answer, which this client would wait for without end.
async function restart(zk, how) {
  const again = zk.hold();
  const gone = zk.next('disconnected');
  await server(how);
  await gone;
  await server('start');
  await again();
}

async function fails(code, promise) {
  const wantedName = Object.keys(Exception).find((name) => Exception[name] === code);
  try {
    await promise;
  } catch (error) {
    assert.strictEqual(error.code, code, `wanted ${wantedName}[${code}], got ${error.message}`);
    return;
  }
  assert.fail(`wanted ${wantedName}[${code}], got success`);
}

// A watcher that keeps its events, as `NAME path`, and can be waited on.
function watching() {
  const events = [];
  const waiting = [];
  const watcher = (event) => {
    events.push(event.getName() + ' ' + event.getPath());
    waiting.splice(0).forEach((wake) => wake());
  };
  watcher.events = events;
  watcher.next = async (ms = 10000) => {
    while (events.length === 0) {
      await within(ms, 'an event', new Promise((resolve) => waiting.push(resolve)));
    }
    return events.shift();
  };
  return watcher;
}

// What a server may have sent before is here once a request has been answered.
const settled = (client) => client.exists('/');

// --- The cases: name, whether the quick form has it, and what it does with a client and a node of its own.

const cases = [];
const test = (name, run) => cases.push({ name, run });
const slow = (name, run) => cases.push({ name, run, slow: true });

test('create returns the path and getData the data and stat', async (zk, at) => {
  const before = Date.now();
  assert.strictEqual(await zk.create(at + '/a', 'hello'), at + '/a');
  const { text, stat } = await zk.get(at + '/a');
  assert.strictEqual(text, 'hello');
  assert.deepStrictEqual(
    [stat.version, stat.cversion, stat.aversion, stat.dataLength, stat.numChildren, number(stat.ephemeralOwner)],
    [0, 0, 0, 5, 0, 0n]
  );
  assert.strictEqual(number(stat.czxid), number(stat.mzxid));
  assert.strictEqual(number(stat.czxid), number(stat.pzxid));
  assert.strictEqual(number(stat.ctime), number(stat.mtime));
  assert.ok(Math.abs(Number(number(stat.ctime)) - before) < 5000, 'ctime is off by more than 5 s');
});

test('no data and empty data are not the same', async (zk, at) => {
  await zk.create(at + '/none');
  await zk.call('create', at + '/empty', Buffer.alloc(0));
  const none = await zk.get(at + '/none');
  const empty = await zk.get(at + '/empty');
  assert.ok(!none.data, 'no data came back as ' + JSON.stringify(none.data));
  assert.ok(Buffer.isBuffer(empty.data) && empty.data.length === 0, 'empty data came back as ' + JSON.stringify(empty.data));
  assert.deepStrictEqual([none.stat.dataLength, empty.stat.dataLength], [0, 0]);
});

test('create refuses a node that exists', async (zk, at) => {
  await zk.create(at + '/a');
  await fails(Exception.NODE_EXISTS, zk.create(at + '/a'));
  await fails(Exception.NODE_EXISTS, zk.create('/'));
});

test('create refuses a node without parent', async (zk, at) => {
  await fails(Exception.NO_NODE, zk.create(at + '/a/b'));
});

test('sequential names count up by parent in ten digits', async (zk, at) => {
  const first = await zk.create(at + '/n-', undefined, CreateMode.PERSISTENT_SEQUENTIAL);
  const second = await zk.create(at + '/n-', undefined, CreateMode.PERSISTENT_SEQUENTIAL);
  const other = await zk.create(at + '/other-', undefined, CreateMode.PERSISTENT_SEQUENTIAL);
  assert.deepStrictEqual([first, second, other], [at + '/n-0000000000', at + '/n-0000000001', at + '/other-0000000002']);
  await zk.remove(second);
  assert.strictEqual(await zk.create(at + '/n-', undefined, CreateMode.PERSISTENT_SEQUENTIAL), at + '/n-0000000003');
});

test('an ephemeral node belongs to its session and has no children', async (zk, at) => {
  await zk.create(at + '/e', 'x', CreateMode.EPHEMERAL);
  const { stat } = await zk.get(at + '/e');
  assert.deepStrictEqual(stat.ephemeralOwner, zk.id);
  await fails(Exception.NO_CHILDREN_FOR_EPHEMERALS, zk.create(at + '/e/child'));
});

test('an ephemeral node goes when its client closes', async (zk, at) => {
  const other = await new Client().connect();
  const path = await other.create(at + '/e-', undefined, CreateMode.EPHEMERAL_SEQUENTIAL);
  assert.strictEqual(path, at + '/e-0000000000');
  const watcher = watching();
  assert.ok(await zk.exists(path, watcher));
  other.close();
  assert.strictEqual(await watcher.next(3000), 'NODE_DELETED ' + path);
  assert.strictEqual(await zk.exists(path), null);
});

test('another client may write and delete an ephemeral node', async (zk, at) => {
  const other = await new Client().connect();
  await other.create(at + '/e', 'x', CreateMode.EPHEMERAL);
  const stat = await zk.set(at + '/e', 'y');
  assert.deepStrictEqual(stat.ephemeralOwner, other.id);
  await zk.remove(at + '/e');
  assert.strictEqual(await other.exists(at + '/e'), null);
});

test('setData counts versions and minds the one asked for', async (zk, at) => {
  await zk.create(at + '/a', '0');
  assert.strictEqual((await zk.set(at + '/a', '1')).version, 1);
  assert.strictEqual((await zk.set(at + '/a', '2', 1)).version, 2);
  await fails(Exception.BAD_VERSION, zk.set(at + '/a', '3', 1));
  await fails(Exception.BAD_VERSION, zk.set(at + '/a', '3', 3));
  const { text, stat } = await zk.get(at + '/a');
  assert.deepStrictEqual([text, stat.version], ['2', 2]);
  assert.ok(number(stat.mzxid) > number(stat.czxid));
  await fails(Exception.NO_NODE, zk.set(at + '/none', ''));
});

test('remove minds the version and the children', async (zk, at) => {
  await zk.create(at + '/a', '0');
  await zk.create(at + '/a/b');
  await fails(Exception.NOT_EMPTY, zk.remove(at + '/a'));
  await fails(Exception.BAD_VERSION, zk.remove(at + '/a/b', 7));
  await zk.remove(at + '/a/b', 0);
  await zk.remove(at + '/a');
  await fails(Exception.NO_NODE, zk.remove(at + '/a'));
});

test('exists tells what is there', async (zk, at) => {
  assert.strictEqual(await zk.exists(at + '/a'), null);
  await zk.create(at + '/a', 'abc');
  assert.strictEqual((await zk.exists(at + '/a')).dataLength, 3);
});

test('getChildren lists names and the stat counts them', async (zk, at) => {
  for (const name of ['c', 'a', 'b']) {
    await zk.create(at + '/' + name);
  }
  await zk.remove(at + '/b');
  const { names, stat } = await zk.children(at);
  assert.deepStrictEqual(names, ['a', 'c']);
  assert.deepStrictEqual([stat.numChildren, stat.cversion, stat.version], [2, 4, 0]);
  assert.ok(number(stat.pzxid) > number(stat.czxid));
  await fails(Exception.NO_NODE, zk.children(at + '/none'));
  assert.deepStrictEqual((await zk.children(at + '/a')).names, []);
});

test('the root has the system nodes', async (zk) => {
  assert.ok((await zk.children('/')).names.includes('zookeeper'));
  assert.deepStrictEqual((await zk.children('/zookeeper')).names, ['config', 'quota']);
  await fails(Exception.BAD_ARGUMENTS, zk.remove('/'));
});

test('names and data may have letters of any script', async (zk, at) => {
  const name = '/grüße 日本';
  assert.strictEqual(await zk.create(at + name, 'ナ'), at + name);
  assert.strictEqual((await zk.get(at + name)).text, 'ナ');
  assert.deepStrictEqual((await zk.children(at)).names, [name.slice(1)]);
});

test('names with characters that ZooKeeper bars are refused', async (zk, at) => {
  // Control characters, the private use area, and in UTF-16 the surrogates: so all beyond the basic plane.
  for (const bad of ['\u{1f418}', '\u0001', '\u007f', '\u009f', '\ue000', '\uf8ff', '\ufff0']) {
    const code = bad.codePointAt(0).toString(16);
    await fails(Exception.BAD_ARGUMENTS, zk.create(at + '/' + bad)).catch((error) => assert.fail(`U+${code}: ${error.message}`));
  }
  assert.strictEqual(await zk.create(at + '/\uffef'), at + '/\uffef');
  assert.strictEqual((await zk.children(at)).stat.numChildren, 1);
});

test('a megabyte of data comes back whole', async (zk, at) => {
  const data = crypto.randomBytes(1000000);
  await zk.call('create', at + '/big', data);
  const back = await zk.get(at + '/big');
  assert.ok(data.equals(back.data), 'other bytes came back');
});

test('a request over the limit costs the connection, not the session', async (zk, at) => {
  const id = zk.id;
  const connected = zk.next('connected');
  await fails(Exception.CONNECTION_LOSS, zk.call('create', at + '/big', Buffer.alloc(1048576)));
  await connected;
  assert.deepStrictEqual(zk.id, id);
  assert.strictEqual(await zk.exists(at + '/big'), null);
});

test('two thousand children are listed', async (zk, at) => {
  const names = Array.from({ length: 2000 }, (_, index) => 'node-' + String(index).padStart(5, '0'));
  await Promise.all(names.map((name) => zk.create(at + '/' + name)));
  const listed = await zk.children(at);
  assert.deepStrictEqual(listed.names, names);
  assert.strictEqual(listed.stat.numChildren, 2000);
});

test('requests of one client are answered in their order', async (zk, at) => {
  await zk.create(at + '/a', '');
  const seen = [];
  const calls = [];
  for (let index = 1; index <= 500; index += 1) {
    calls.push(zk.set(at + '/a', String(index)).then((stat) => seen.push(stat.version)));
    calls.push(zk.get(at + '/a').then(({ text }) => seen.push(Number(text))));
  }
  await Promise.all(calls);
  const expected = Array.from({ length: 1000 }, (_, index) => Math.floor(index / 2) + 1);
  assert.deepStrictEqual(seen, expected);
});

test('fifty clients at once get distinct sequential nodes', async (zk, at) => {
  const clients = await Promise.all(Array.from({ length: 50 }, () => new Client().connect()));
  const ids = new Set(clients.map((client) => client.id.toString('hex')));
  assert.strictEqual(ids.size, 50, 'two sessions have one id');
  const paths = await Promise.all(clients.map((client) => client.create(at + '/q-', '', CreateMode.EPHEMERAL_SEQUENTIAL)));
  assert.deepStrictEqual(
    [...paths].sort(),
    paths.map((_, index) => at + '/q-' + String(index).padStart(10, '0'))
  );
  assert.strictEqual((await zk.children(at)).names.length, 50);
  await Promise.all(clients.map((client) => client.closed()));
  const end = Date.now() + 5000;
  while ((await zk.children(at)).names.length > 0 && Date.now() < end) {
    await sleep(50);
  }
  assert.deepStrictEqual((await zk.children(at)).names, []);
});

test('a data watch fires once, for a change or a deletion', async (zk, at) => {
  const other = await new Client().connect();
  await zk.create(at + '/a', '0');
  const watcher = watching();
  await zk.get(at + '/a', watcher);
  await other.set(at + '/a', '1');
  assert.strictEqual(await watcher.next(), 'NODE_DATA_CHANGED ' + at + '/a');
  await other.set(at + '/a', '2');
  await settled(zk);
  assert.deepStrictEqual(watcher.events, []);
  await zk.get(at + '/a', watcher);
  await other.remove(at + '/a');
  assert.strictEqual(await watcher.next(), 'NODE_DELETED ' + at + '/a');
});

test('an exists watch fires for a creation, a change and a deletion', async (zk, at) => {
  const watcher = watching();
  await zk.exists(at + '/a', watcher);
  await zk.create(at + '/a', '0');
  assert.strictEqual(await watcher.next(), 'NODE_CREATED ' + at + '/a');
  await zk.exists(at + '/a', watcher);
  await zk.set(at + '/a', '1');
  assert.strictEqual(await watcher.next(), 'NODE_DATA_CHANGED ' + at + '/a');
  await zk.exists(at + '/a', watcher);
  await zk.remove(at + '/a');
  assert.strictEqual(await watcher.next(), 'NODE_DELETED ' + at + '/a');
});

test('a child watch fires for a new, a deleted and no changed child', async (zk, at) => {
  const watcher = watching();
  await zk.children(at, watcher);
  await zk.create(at + '/a', '0');
  assert.strictEqual(await watcher.next(), 'NODE_CHILDREN_CHANGED ' + at);
  await zk.children(at, watcher);
  await zk.set(at + '/a', '1');
  await zk.set(at, 'itself');
  await zk.create(at + '/a/grandchild');
  await zk.remove(at + '/a/grandchild');
  await settled(zk);
  assert.deepStrictEqual(watcher.events, []);
  await zk.remove(at + '/a');
  assert.strictEqual(await watcher.next(), 'NODE_CHILDREN_CHANGED ' + at);
  await zk.create(at + '/b');
  await zk.children(at + '/b', watcher);
  await zk.remove(at + '/b');
  assert.strictEqual(await watcher.next(), 'NODE_DELETED ' + at + '/b');
});

test('what fails fires no watch', async (zk, at) => {
  await zk.create(at + '/a', '0');
  const watcher = watching();
  await zk.get(at + '/a', watcher);
  await zk.children(at, watcher);
  await fails(Exception.BAD_VERSION, zk.set(at + '/a', '1', 9));
  await fails(Exception.NODE_EXISTS, zk.create(at + '/a'));
  const { error } = await zk.commit(
    zk.raw.transaction().setData(at + '/a', bytes('2')).create(at + '/b').remove(at + '/none')
  );
  assert.strictEqual(error.code, Exception.NO_NODE);
  await settled(zk);
  assert.deepStrictEqual(watcher.events, []);
});

test('the event of a change comes before its answer', async (zk, at) => {
  await zk.create(at + '/a', '0');
  const order = [];
  await zk.get(at + '/a', () => order.push('event'));
  await zk.set(at + '/a', '1').then(() => order.push('answer'));
  assert.deepStrictEqual(order, ['event', 'answer']);
});

test('no client sees a change before its event', async (zk, at) => {
  const other = await new Client().connect();
  await zk.create(at + '/a', '0');
  for (let round = 1; round <= 50; round += 1) {
    let told = false;
    await zk.get(at + '/a', () => {
      told = true;
    });
    const change = other.set(at + '/a', String(round));
    let text;
    do {
      ({ text } = await zk.get(at + '/a'));
      assert.ok(told || text !== String(round), 'round ' + round + ': read the new data before the event');
    } while (text !== String(round));
    await change;
  }
});

test('a node that forty clients watch tells each', async (zk, at) => {
  await zk.create(at + '/a', '0');
  const clients = await Promise.all(Array.from({ length: 40 }, () => new Client().connect()));
  const watchers = clients.map(() => watching());
  await Promise.all(clients.map((client, index) => client.get(at + '/a', watchers[index])));
  await zk.set(at + '/a', '1');
  const events = await Promise.all(watchers.map((watcher) => watcher.next()));
  assert.deepStrictEqual(new Set(events), new Set(['NODE_DATA_CHANGED ' + at + '/a']));
});

test('a transaction applies all its operations', async (zk, at) => {
  await zk.create(at + '/a', '0');
  await zk.create(at + '/old');
  const { error, results } = await zk.commit(
    zk.raw
      .transaction()
      .check(at + '/a')
      .create(at + '/b', bytes('new'))
      .create(at + '/b/n-', CreateMode.EPHEMERAL_SEQUENTIAL)
      .setData(at + '/a', bytes('1'))
      .remove(at + '/old')
  );
  assert.ok(!error, String(error));
  assert.strictEqual(results.length, 5);
  assert.strictEqual(results[1].path, at + '/b');
  assert.strictEqual(results[2].path, at + '/b/n-0000000000');
  assert.strictEqual(results[3].stat.version, 1);
  assert.deepStrictEqual((await zk.children(at)).names, ['a', 'b']);
  const a = await zk.get(at + '/a');
  const b = await zk.get(at + '/b');
  assert.strictEqual(a.text, '1');
  // One transaction, one zxid.
  assert.strictEqual(number(a.stat.mzxid), number(b.stat.czxid));
});

test('a transaction that fails changes nothing and says where', async (zk, at) => {
  await zk.create(at + '/a', '0');
  const { error, results } = await zk.commit(
    zk.raw
      .transaction()
      .create(at + '/b')
      .setData(at + '/a', bytes('1'), 5)
      .remove(at + '/a')
  );
  assert.strictEqual(error.code, Exception.BAD_VERSION);
  assert.deepStrictEqual(
    results.map((result) => result.err),
    [0, Exception.BAD_VERSION, Exception.RUNTIME_INCONSISTENCY]
  );
  assert.deepStrictEqual((await zk.children(at)).names, ['a']);
  assert.strictEqual((await zk.get(at + '/a')).stat.version, 0);
});

test('a transaction sees its own operations', async (zk, at) => {
  const done = await zk.commit(
    zk.raw
      .transaction()
      .create(at + '/a', bytes('0'))
      .create(at + '/a/b')
      .setData(at + '/a', bytes('1'), 0)
      .remove(at + '/a/b')
      .remove(at + '/a', 1)
  );
  // The client takes version 0 for "any".
  assert.ok(!done.error, String(done.error));
  const refused = await zk.commit(zk.raw.transaction().create(at + '/c').create(at + '/c'));
  assert.strictEqual(refused.error.code, Exception.NODE_EXISTS);
  assert.deepStrictEqual((await zk.children(at)).names, []);
});

test('check in a transaction wants the node', async (zk, at) => {
  const { error } = await zk.commit(zk.raw.transaction().check(at + '/none').create(at + '/a'));
  assert.strictEqual(error.code, Exception.NO_NODE);
  assert.strictEqual(await zk.exists(at + '/a'), null);
});

test('a transaction without operations succeeds', async (zk) => {
  const { error, results } = await zk.commit(zk.raw.transaction());
  assert.ok(!error, String(error));
  assert.strictEqual(results.length, 0);
});

test('a transaction of a thousand operations succeeds', async (zk, at) => {
  const transaction = zk.raw.transaction();
  for (let index = 0; index < 1000; index += 1) {
    transaction.create(at + '/n' + index, bytes(String(index)));
  }
  const { error, results } = await zk.commit(transaction);
  assert.ok(!error, String(error));
  assert.strictEqual(results.length, 1000);
  assert.strictEqual((await zk.children(at)).names.length, 1000);
});

test('an access list is kept and counted', async (zk, at) => {
  await zk.create(at + '/a', '');
  const read = [new ACL(Permission.READ | Permission.ADMIN, Id.ANYONE_ID_UNSAFE)];
  const [stat] = await zk.call('setACL', at + '/a', read, 0);
  assert.strictEqual(stat.aversion, 1);
  const [acls] = await zk.call('getACL', at + '/a');
  assert.deepStrictEqual(
    acls.map((acl) => [acl.permission, acl.id.scheme, acl.id.id]),
    [[17, 'world', 'anyone']]
  );
  await fails(Exception.BAD_VERSION, zk.call('setACL', at + '/a', read, 0));
  await fails(Exception.NO_AUTH, zk.set(at + '/a', 'x'));
  await fails(Exception.NO_AUTH, zk.create(at + '/a/b'));
  assert.strictEqual((await zk.get(at + '/a')).text, '');
});

test('each permission guards its operations', async (zk, at) => {
  const only = (permission) => [new ACL(permission, Id.ANYONE_ID_UNSAFE)];
  await zk.create(at + '/create', '', only(Permission.CREATE));
  await zk.create(at + '/create/child', '');
  await fails(Exception.NO_AUTH, zk.get(at + '/create'));
  await fails(Exception.NO_AUTH, zk.children(at + '/create'));
  await fails(Exception.NO_AUTH, zk.remove(at + '/create/child'));
  await fails(Exception.NO_AUTH, zk.exists(at + '/create'));
  await zk.create(at + '/write', '', only(Permission.WRITE));
  await zk.set(at + '/write', 'x');
  await fails(Exception.NO_AUTH, zk.get(at + '/write'));
  await fails(Exception.NO_AUTH, zk.call('getACL', at + '/write'));
  await fails(Exception.NO_AUTH, zk.call('setACL', at + '/write', ACL.OPEN_ACL_UNSAFE));
  // Deleting asks for a permission of the parent, not of the node.
  await zk.remove(at + '/write');
});

test('digest credentials open what they closed', async (zk, at) => {
  const owner = await new Client().connect();
  owner.auth('digest', 'alice:secret');
  await owner.create(at + '/a', 'x', ACL.CREATOR_ALL_ACL);
  const [acls] = await owner.call('getACL', at + '/a');
  assert.deepStrictEqual(
    acls.map((acl) => [acl.permission, acl.id.scheme, acl.id.id]),
    [[31, 'digest', digest('alice', 'secret')]]
  );
  await fails(Exception.NO_AUTH, zk.get(at + '/a'));
  zk.auth('digest', 'alice:wrong');
  await fails(Exception.NO_AUTH, zk.get(at + '/a'));
  zk.auth('digest', 'alice:secret');
  assert.strictEqual((await zk.get(at + '/a')).text, 'x');
});

test('an access list may name an address', async (zk, at) => {
  await zk.create(at + '/here', 'x', [new ACL(Permission.ALL, new Id('ip', '127.0.0.1'))]);
  assert.strictEqual((await zk.get(at + '/here')).text, 'x');
  await zk.create(at + '/net', 'x', [new ACL(Permission.ALL, new Id('ip', '127.0.0.0/8'))]);
  assert.strictEqual((await zk.get(at + '/net')).text, 'x');
  await zk.create(at + '/there', 'x', [new ACL(Permission.ALL, new Id('ip', '10.1.2.3'))]);
  await fails(Exception.NO_AUTH, zk.get(at + '/there'));
});

test('an access list that makes no sense is refused', async (zk, at) => {
  await fails(Exception.INVALID_ACL, zk.create(at + '/a', '', ACL.CREATOR_ALL_ACL));
  await fails(Exception.INVALID_ACL, zk.create(at + '/a', '', [new ACL(31, new Id('nosuch', 'x'))]));
  await fails(Exception.INVALID_ACL, zk.create(at + '/a', '', [new ACL(31, new Id('ip', 'not an address'))]));
  assert.strictEqual(await zk.exists(at + '/a'), null);
});

test('an unknown scheme of credentials ends the client', async () => {
  const client = await new Client().connect();
  const failed = client.next('authenticationFailed', 5000);
  client.auth('nosuch', 'x');
  await failed;
  open.delete(client);
});

test('the session timeout is kept within bounds', async () => {
  for (const [asked, given] of [[100, 1000], [3000, 3000], [100000, 10000]]) {
    const client = await new Client({ sessionTimeout: asked }).connect();
    assert.strictEqual(client.raw.getSessionTimeout(), given);
    client.close();
  }
});

test('a dropped connection is opened again with the same session', async (zk, at) => {
  await zk.create(at + '/e', '', CreateMode.EPHEMERAL);
  const id = zk.id;
  const connected = zk.next('connected');
  zk.drop();
  await connected;
  assert.deepStrictEqual(zk.id, id);
  assert.deepStrictEqual((await zk.exists(at + '/e')).ephemeralOwner, id);
});

test('another client may take a session over', async (zk, at) => {
  const first = await new Client().connect();
  await first.create(at + '/e', '', CreateMode.EPHEMERAL);
  const session = { sessionId: first.id, sessionPassword: first.raw.getSessionPassword() };
  first.hold();
  first.drop();
  open.delete(first);
  const second = await new Client(session).connect();
  assert.deepStrictEqual(second.id, session.sessionId);
  const watcher = watching();
  assert.ok(await zk.exists(at + '/e', watcher));
  await second.remove(at + '/e');
  assert.strictEqual(await watcher.next(), 'NODE_DELETED ' + at + '/e');
});

test('taking a session over closes its old connection', async () => {
  const first = await new Client().connect();
  first.hold();
  const gone = first.next('disconnected', 5000);
  const second = await new Client({ sessionId: first.id, sessionPassword: first.raw.getSessionPassword() }).connect();
  await gone;
  open.delete(first);
  assert.ok(await second.exists('/'));
});

test('a session wants its password', async () => {
  // ZooKeeper closes the connection that the session has before it looks at the password: the owner comes back with it.
  const first = await new Client({ retries: 5 }).connect();
  const id = first.id;
  const thief = new Client({ sessionId: first.id, sessionPassword: Buffer.alloc(16, 7) });
  const expired = thief.next('expired', 5000);
  thief.raw.connect();
  await expired;
  open.delete(thief);
  assert.ok(await first.exists('/'));
  assert.deepStrictEqual(first.id, id);
});

test('a session that never was has expired', async () => {
  const client = new Client({ sessionId: Buffer.from('0102030405060708', 'hex'), sessionPassword: Buffer.alloc(16, 7) });
  const expired = client.next('expired', 5000);
  client.raw.connect();
  await expired;
  open.delete(client);
});

test('a session that was closed has expired', async () => {
  const first = await new Client().connect();
  const session = { sessionId: first.id, sessionPassword: first.raw.getSessionPassword() };
  await first.closed();
  const second = new Client(session);
  const expired = second.next('expired', 5000);
  second.raw.connect();
  await expired;
  open.delete(second);
});

test('a silent session expires and its ephemeral nodes go', async (zk, at) => {
  const silent = new Client({ sessionTimeout: 1000 });
  silent.raw.connectionManager.onSocketTimeout = () => {};
  await silent.connect();
  await silent.create(at + '/e', '', CreateMode.EPHEMERAL);
  const watcher = watching();
  assert.ok(await zk.exists(at + '/e', watcher));
  const expired = silent.next('expired', 8000);
  const begun = Date.now();
  assert.strictEqual(await watcher.next(5000), 'NODE_DELETED ' + at + '/e');
  assert.ok(Date.now() - begun > 500, 'it expired too early');
  await expired;
  open.delete(silent);
});

test('pings keep an idle session', async (zk, at) => {
  const idle = await new Client({ sessionTimeout: 1000 }).connect();
  await idle.create(at + '/e', '', CreateMode.EPHEMERAL);
  await sleep(3500);
  assert.deepStrictEqual(idle.states, ['SYNC_CONNECTED']);
  assert.ok(await zk.exists(at + '/e'));
});

test('a client that was away hears what it missed', async (zk, at) => {
  const other = await new Client().connect();
  for (const name of ['changed', 'deleted', 'parent', 'same', 'gone']) {
    await zk.create(at + '/' + name, '0');
  }
  const watchers = {};
  for (const name of ['changed', 'deleted', 'same']) {
    watchers[name] = watching();
    await zk.get(at + '/' + name, watchers[name]);
  }
  watchers.created = watching();
  await zk.exists(at + '/created', watchers.created);
  for (const name of ['parent', 'gone']) {
    watchers[name] = watching();
    await zk.children(at + '/' + name, watchers[name]);
  }
  const again = zk.hold();
  zk.drop();
  await other.set(at + '/changed', '1');
  await other.remove(at + '/deleted');
  await other.create(at + '/created');
  await other.create(at + '/parent/child');
  await other.remove(at + '/gone');
  await again();
  assert.strictEqual(await watchers.changed.next(), 'NODE_DATA_CHANGED ' + at + '/changed');
  assert.strictEqual(await watchers.deleted.next(), 'NODE_DELETED ' + at + '/deleted');
  assert.strictEqual(await watchers.created.next(), 'NODE_CREATED ' + at + '/created');
  assert.strictEqual(await watchers.parent.next(), 'NODE_CHILDREN_CHANGED ' + at + '/parent');
  assert.strictEqual(await watchers.gone.next(), 'NODE_DELETED ' + at + '/gone');
  await settled(zk);
  assert.deepStrictEqual(watchers.same.events, []);
  await other.set(at + '/same', '1');
  assert.strictEqual(await watchers.same.next(), 'NODE_DATA_CHANGED ' + at + '/same');
});

test('a thousand watches outlive a dropped connection', async (zk, at) => {
  const paths = Array.from({ length: 1000 }, (_, index) => `${at}/${'long-name-'.repeat(8)}${index}`);
  await Promise.all(paths.map((path) => zk.create(path, '0')));
  const watcher = watching();
  await Promise.all(paths.map((path) => zk.get(path, (event) => watcher(event))));
  const other = await new Client().connect();
  const connected = zk.next('connected');
  zk.drop();
  await connected;
  await settled(zk);
  await Promise.all(paths.map((path) => other.set(path, '1')));
  const events = [];
  while (events.length < paths.length) {
    events.push(await watcher.next());
  }
  assert.deepStrictEqual(events.sort(), paths.map((path) => 'NODE_DATA_CHANGED ' + path).sort());
});

test('a client under a chroot sees paths from there', async (zk, at) => {
  const inside = await new Client({}, at).connect();
  assert.strictEqual(await inside.create('/a', 'x'), '/a');
  assert.strictEqual((await zk.get(at + '/a')).text, 'x');
  const watcher = watching();
  await inside.get('/a', watcher);
  await zk.set(at + '/a', 'y');
  assert.strictEqual(await watcher.next(), 'NODE_DATA_CHANGED /a');
  assert.deepStrictEqual((await inside.children('/')).names, ['a']);
});

test('trees are made, listed and removed', async (zk, at) => {
  await zk.call('mkdirp', at + '/a/b/c');
  await zk.call('mkdirp', at + '/a/b/d');
  assert.deepStrictEqual((await zk.children(at + '/a/b')).names, ['c', 'd']);
  // This release of the client looks no deeper than one level.
  const [paths] = await zk.call('listSubTreeBFS', at + '/a/b');
  assert.deepStrictEqual([...paths].sort(), ['', '/c', '/d'].map((path) => at + '/a/b' + path));
  await zk.call('removeRecursive', at + '/a/b');
  await zk.call('removeRecursive', at + '/a');
  assert.deepStrictEqual((await zk.children(at)).names, []);
});

test('the lock recipe gives the lock to one at a time, in turn', async (zk, at) => {
  const clients = await Promise.all(Array.from({ length: 8 }, () => new Client().connect()));
  let holders = 0;
  const order = [];
  await Promise.all(
    clients.map(async (client) => {
      const mine = (await client.create(at + '/lock-', '', CreateMode.EPHEMERAL_SEQUENTIAL)).slice(at.length + 1);
      for (;;) {
        const { names } = await client.children(at);
        const place = names.indexOf(mine);
        if (place === 0) {
          break;
        }
        const watcher = watching();
        if (await client.exists(at + '/' + names[place - 1], watcher)) {
          await watcher.next();
        }
      }
      holders += 1;
      assert.strictEqual(holders, 1, 'two hold the lock');
      order.push(mine);
      await sleep(5);
      holders -= 1;
      await client.remove(at + '/' + mine);
    })
  );
  assert.deepStrictEqual(order, [...order].sort());
  assert.strictEqual(order.length, 8);
});

slow('a session lives through a restart of the server, with its nodes, watches and credentials', async (zk, at) => {
  zk.auth('digest', 'bob:secret');
  await zk.create(at + '/mine', 'x', ACL.CREATOR_ALL_ACL);
  await zk.create(at + '/e', '', CreateMode.EPHEMERAL);
  await zk.create(at + '/a', '0');
  await zk.set(at + '/a', '1');
  const before = await zk.get(at + '/a');
  const watcher = watching();
  await zk.get(at + '/a', watcher);
  const id = zk.id;
  await restart(zk, 'stop');
  assert.deepStrictEqual(zk.id, id);
  const after = await zk.get(at + '/a');
  assert.deepStrictEqual(after.stat, before.stat);
  assert.deepStrictEqual((await zk.exists(at + '/e')).ephemeralOwner, id);
  assert.strictEqual((await zk.get(at + '/mine')).text, 'x');
  const other = await new Client().connect();
  await fails(Exception.NO_AUTH, other.get(at + '/mine'));
  assert.deepStrictEqual(watcher.events, []);
  const stat = await other.set(at + '/a', '2');
  assert.strictEqual(stat.version, 2);
  assert.ok(number(stat.mzxid) > number(before.stat.mzxid));
  assert.strictEqual(await watcher.next(), 'NODE_DATA_CHANGED ' + at + '/a');
});

slow('what was acknowledged outlives a crash of the server', async (zk, at) => {
  const done = [];
  let writing = true;
  const writer = (async () => {
    for (let index = 0; writing; index += 1) {
      try {
        done.push(await zk.create(at + '/n-' + index, String(index)));
      } catch (error) {
        assert.strictEqual(error.code, Exception.CONNECTION_LOSS);
        return;
      }
    }
  })();
  await sleep(1000);
  await restart(zk, 'kill');
  writing = false;
  await writer;
  assert.ok(done.length > 10, 'only ' + done.length + ' nodes were made');
  const there = new Set((await zk.children(at)).names.map((name) => at + '/' + name));
  assert.deepStrictEqual(done.filter((path) => !there.has(path)), []);
  // The one request that was under way may have been carried out or not.
  assert.ok(there.size <= done.length + 1);
  assert.strictEqual((await zk.get(done[done.length - 1])).text, String(done.length - 1));
});

slow('a session whose client stayed away expires after a restart', async (zk, at) => {
  const away = await new Client({ sessionTimeout: 1000 }).connect();
  await away.create(at + '/e', '', CreateMode.EPHEMERAL);
  const again = away.hold();
  away.drop();
  await restart(zk, 'stop');
  const end = Date.now() + 8000;
  while ((await zk.exists(at + '/e')) && Date.now() < end) {
    await sleep(100);
  }
  assert.strictEqual(await zk.exists(at + '/e'), null);
  const expired = away.next('expired', 8000);
  again().catch(() => {});
  await expired;
  open.delete(away);
});

// --- Running them.

async function main() {
  const out = fs.openSync(resultsFile, 'a');
  let broken = () => {};
  process.on('uncaughtException', (error) => broken(error));
  process.on('unhandledRejection', (error) => broken(error));
  let number = 0;
  for (const { name, run, slow: isSlow } of cases) {
    number += 1;
    if ((quick && isSlow && wanted.length === 0) || (wanted.length > 0 && !wanted.includes(name))) {
      continue;
    }
    const at = '/case' + number;
    let result = 'passed';
    let reason = '';
    const begun = Date.now();
    try {
      // The client throws out of its socket's callbacks; that is the case's failure.
      const thrown = new Promise((_, reject) => {
        broken = reject;
      });
      thrown.catch(() => {});
      const body = async () => {
        const zk = await new Client().connect();
        await zk.create(at);
        await run(zk, at);
      };
      await within(90000, 'the case', Promise.race([body(), thrown]));
    } catch (error) {
      result = 'failed';
      reason = error instanceof Error ? error.message : String(error);
      console.error(name + '\n' + (error && error.stack));
    }
    broken = (error) => console.error('after ' + name + '\n' + (error && error.stack));
    for (const client of open) {
      try {
        client.close();
      } catch (error) {
        console.error(error);
      }
    }
    console.error(`${result} in ${Date.now() - begun} ms: ${name}`);
    fs.writeSync(out, JSON.stringify({ name, result, reason }) + '\n');
  }
  process.exit(0);
}

main();
