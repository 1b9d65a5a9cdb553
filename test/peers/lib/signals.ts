/** Guests that wait for each other: each calls `host say NAME` and `host wait NAME` in its steps. */

/** Something that one guest waits for and another one says. */
export class Signals {
  readonly #said = new Map<string, { promise: Promise<void>; say: () => void }>();

  #of(name: string): { promise: Promise<void>; say: () => void } {
    let signal = this.#said.get(name);
    if (signal === undefined) {
      let say = (): void => {};
      const promise = new Promise<void>((resolve) => {
        say = resolve;
      });
      signal = { promise, say };
      this.#said.set(name, signal);
    }
    return signal;
  }

  readonly host = {
    say: (name: string): string => {
      this.#of(name).say();
      return 'said';
    },
    wait: async (name: string): Promise<string> => {
      await this.#of(name).promise;
      return 'heard';
    },
  };
}
