/** A client behind a filter, for the suite of a port's clients: the filter is put in when things first settle, as an operator would while all runs. */

import { type Filter, FilterChain } from '../../src/link/filter/filter.ts';
import type { ClientUnderTest } from '../conformance/port-client.ts';
import { packet, RecordingClient, type TestContext } from './context.ts';

/** Longer than any filter of the suite keeps a frame. */
const SETTLE_NS = 2e6;

/** `blocks`: frames that the client cannot take come back to their sender; a filter that takes them elsewhere has no such thing. */
export function behindFilter(context: TestContext, filter: Filter, blocks = true): ClientUnderTest {
  const far = new RecordingClient(context, 'far');
  const chain = new FilterChain(far.port);
  let routed = false;
  return {
    port: far.port,
    goodFrame: (tag) => packet(tag),
    ...(blocks && {
      block() {
        far.room = 0;
      },
      unblock: () => far.allow(Number.POSITIVE_INFINITY),
    }),
    emit: (count) => void far.send(...Array.from({ length: count }, (_, i) => packet(i))),
    settle() {
      if (!routed) chain.insert(filter, 'head');
      routed = true;
      context.loop.runUntil(context.clock.nowNs() + SETTLE_NS);
    },
    close() {
      chain.remove(filter);
      filter.close();
      far.close();
    },
  };
}
