/** Every backend that needs no privilege; test/peers/backends-privileged.test.ts has the others. */

import { pairSuite } from './pair-suite.ts';
import { PAIRS } from './pairs.ts';

for (const pair of PAIRS) pairSuite(pair);
