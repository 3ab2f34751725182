/* arm64 walker. */
