/** THE TABLE of backends that can be opened under Node. */

import type { BackendTable } from './backend.ts';

export const nodeBackends: BackendTable = {};
