/* x86 walker. */
