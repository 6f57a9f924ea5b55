"""Where systems come from: raw files of any format, embedded sets; validation; splits."""

import spglib

# spglib 2.8 warns on every call unless it may raise. All that call it import this package.
spglib.error.OLD_ERROR_HANDLING = False
