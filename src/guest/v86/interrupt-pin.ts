/**
 * A NIC's INTA# on v86's interrupt controller, which has two ways of its own.
 *
 * An interrupt that is raised while the CPU is in the middle of an instruction (a register write makes the NIC send, and the sending makes it, or another NIC on the same
 * hub, interrupt) can be lost, and all that come after it on these lines. So what rises goes up in the loop's next turn, when the CPU rests between two slices of
 * time. What falls, falls at once: the line is level-triggered, and a handler would be called again for nothing.
 *
 * A line has one level, not one for each device on it: when one NIC lets go, those of ours that still pull on theirs do so again.
 */

import type { Loop } from '../../core/loop.ts';
import type { V86Pci } from './machine.ts';

export class InterruptPin {
  readonly #pci: V86Pci;
  readonly #bdf: number;
  readonly #loop: Loop;
  readonly #others: () => readonly InterruptPin[];
  /** What the NIC asks for, and what v86 was told. */
  #wanted = false;
  #raised = false;
  #posted = false;
  readonly #later = (): void => {
    this.#posted = false;
    if (!this.#wanted || this.#raised) return;
    this.#raised = true;
    this.#pci.raise_irq(this.#bdf);
  };

  /** `others` are the pins of all other NICs of ours on the bus. */
  constructor(pci: V86Pci, bdf: number, loop: Loop, others: () => readonly InterruptPin[]) {
    this.#pci = pci;
    this.#bdf = bdf;
    this.#loop = loop;
    this.#others = others;
  }

  set(level: boolean): void {
    this.#wanted = level;
    if (level) this.#raiseLater();
    else this.#lower();
  }

  close(): void {
    this.set(false);
  }

  #raiseLater(): void {
    if (this.#posted || this.#raised) return;
    this.#posted = true;
    this.#loop.post(this.#later);
  }

  #lower(): void {
    if (!this.#raised) return;
    this.#raised = false;
    this.#pci.lower_irq(this.#bdf);
    for (const other of this.#others()) other.#again();
  }

  /** The line may have gone down under this pin. */
  #again(): void {
    if (!this.#raised) return;
    this.#raised = false;
    this.#raiseLater();
  }
}
